"""What the source text of a TorchScript archive says about the network, without running a line of the text.

Names and shapes of parameters do not tell how the network computes: an FFT norm, a dilation, the kind of padding. The
code does. A setting that our network does not support is refused here, for its parameters would be read without an
error and give another picture.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from glama_deploy.errors import CheckpointError
from glama_deploy.text.excerpts import excerpt

#: Functions that no supported network calls.
_FOREIGN_FUNCTION = re.compile(
    r"_*(?:upsample\w*|interpolate|grid_sampler\w*|replication_pad\dd|leaky_relu_?|prelu|elu_?|selu_?|gelu_?|silu_?)"
)
_TRANSFORM = re.compile(r"fft_i?[rh]?fft[2n]?")
_PAD_MODES_REFUSED = ('"replicate"', '"circular"')

#: The place of an argument of each convolution, and the values that are supported. An absent argument is supported:
#: torch's default is one of the values.
_CONVOLUTIONS = {
    "_convolution": {"dilation": 5},
    "convolution": {"dilation": 5},
    "conv2d": {"padding": 4, "dilation": 5},
    "conv_transpose2d": {"dilation": 7},
}
_SUPPORTED = {"dilation": ("[1, 1]", "[1]", "1"), "padding": ("[0, 0]", "[0]", "0")}

#: A literal argument is short; of a longer argument only its length counts.
_MAX_LITERAL_CHARACTERS = 40

#: No alternative begins again inside of a word or of a string, so that the time is linear in the length of the text.
_TOKEN = re.compile(
    r"^ *(?P<assigned>\w+) = (?P<literal>\"[^\"\n]{0,40}\"|\[[-\d, ]{0,40}\])$"
    r"|^ *(?P<function>def) "
    r'|"(?:[^"\\\n]|\\.)*"?'
    r"|(?<![\w.])(?P<call>[\w.]*)\("
    r"|(?P<open>[\[{])"
    r"|(?P<close>[\])}])"
    r"|(?P<comma>,)",
    re.MULTILINE,
)


def check(code: str, two_stages: bool = False) -> None:
    """Raise CheckpointError where TorchScript code computes what our network does not compute.

    Args:
        code: the source text, as torch prints the code of a traced or scripted network.
        two_stages: whether the file holds a coarse network, whose picture the other network enlarges.

    Raises:
        CheckpointError: another activation behind the head than a sigmoid, an FFT norm other than "ortho", a dilation
            other than 1, a convolution that pads with zeros, a padding other than by reflection, another activation
            than a ReLU, or an interpolation. The message names what was found.
    """
    if "tanh" in code or "sigmoid" not in code:
        found = "a tanh" if "tanh" in code else "no sigmoid"
        raise CheckpointError(f"its code has {found}; only networks that end in a sigmoid are supported")
    for function, arguments in _calls(code):
        if _FOREIGN_FUNCTION.fullmatch(function) and not (two_stages and function == "upsample_bilinear2d"):
            raise CheckpointError(f"its code calls {excerpt(function)}; LaMa as published does not")
        if _TRANSFORM.fullmatch(function):
            _check(function, "norm", arguments[3] if len(arguments) > 3 else "None", ('"ortho"',))
        elif function == "pad" and arguments[2:3] and arguments[2] in _PAD_MODES_REFUSED:
            _check(function, "mode", arguments[2], ('"reflect"',))
        for name, place in _CONVOLUTIONS.get(function, {}).items():
            if len(arguments) > place:
                _check(function, name, arguments[place], _SUPPORTED[name])
        if function in ("_convolution", "convolution") and arguments[6:7] == ["False"]:
            _check(function, "padding", arguments[4], _SUPPORTED["padding"])


def _check(function: str, name: str, found: str, supported: tuple[str, ...]) -> None:
    if found not in supported:
        raise CheckpointError(
            f"its code calls {function} with {name} {excerpt(found, 40)}; only {supported[0]} is supported"
        )


def _calls(code: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each call's function, without the modules in front, and its arguments: one pass, whatever the nesting.

    An argument that is a variable of a literal value is given as that literal.
    """
    literals: dict[str, str] = {}
    stack: list[tuple[str, list[str], int]] = []
    for token in _TOKEN.finditer(code):
        kind = token.lastgroup
        if kind == "literal":
            literals[token["assigned"]] = token["literal"]
        elif kind == "function":
            literals, stack = {}, []
        elif kind in ("call", "open"):
            stack.append((token["call"] or "", [], token.end()))
        elif stack and kind in ("comma", "close"):
            function, arguments, start = stack.pop()
            if token.start() - start <= _MAX_LITERAL_CHARACTERS:
                argument = code[start : token.start()].strip()
            else:
                argument = "a computed value"
            if argument or kind == "comma":
                arguments.append(literals.get(argument, argument))
            if kind == "comma":
                stack.append((function, arguments, token.end()))
            elif function:
                yield function.rpartition(".")[2], arguments
