"""Files that programs send as text: base64, bare or as a data URL."""

from __future__ import annotations

import base64
import binascii

from glama_deploy.errors import GlamaError

#: The beginning of a data URL.
_SCHEME = "data:"


def is_data_url(text: str) -> bool:
    """Tell whether a text is a data URL.

    Args:
        text: The text.

    Returns:
        True if the text begins with `data:`, in capital or small letters.
    """
    return text[: len(_SCHEME)].lower() == _SCHEME


def decode_base64(text: str, name: str) -> bytes:
    """Decode a file that was sent as text.

    Args:
        text: base64, bare or as a data URL. Line breaks do not matter.
        name: The name of the field, for messages.

    Returns:
        The bytes of the file.

    Raises:
        GlamaError: The text is not base64.
    """
    encoded = text
    if is_data_url(text):
        head, comma, encoded = text.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise GlamaError(f"`{name}` is a data URL without base64; data:image/png;base64,… is expected")
    try:
        return base64.b64decode(encoded)
    except (binascii.Error, ValueError) as error:
        raise GlamaError(f"`{name}` is not base64 ({error}); encode the file's bytes") from error
