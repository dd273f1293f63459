"""Search the code of a TorchScript archive for settings that are not supported, without running the code.

Names and shapes of parameters do not imply the FFT norm, the dilation or the padding mode, but the code contains them.
A network with other settings has the same parameters and gives another picture, so such a network is refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from glama_deploy.checkpoints.parameters import REGULAR_STEM, STEM
from glama_deploy.errors import CheckpointError
from glama_deploy.text.excerpts import excerpt

#: Functions that supported networks do not call.
_FOREIGN_FUNCTION = re.compile(
    r"_*(?:upsample\w*|interpolate|grid_sampler\w*|replication_pad\dd|leaky_relu_?|prelu|elu_?|selu_?|gelu_?|silu_?)"
)

#: FFTs.
_TRANSFORM = re.compile(r"fft_i?[rh]?fft[2n]?")

#: Padding modes that are not supported.
_REFUSED_PAD_MODES = ('"replicate"', '"circular"')

#: Positions of the checked arguments of each convolution. A missing argument is supported, because torch's default is a
#: supported value.
_CONVOLUTIONS = {
    "_convolution": {"dilation": 5},
    "convolution": {"dilation": 5},
    "conv2d": {"padding": 4, "dilation": 5},
    "conv_transpose2d": {"dilation": 7},
}

#: Supported values of these arguments.
_SUPPORTED = {"dilation": ("[1, 1]", "[1]", "1"), "padding": ("[0, 0]", "[0]", "0")}

#: A longer argument is not a literal.
_MAX_LITERAL_CHARACTERS = 40

#: Tokens of the code. No alternative can begin inside of a word or of a string, so the time is linear in the length of
#: the code.
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


def check_parameters(names: Collection[str]) -> None:
    """Check that TorchScript has parameters of a network whose code can be checked.

    Args:
        names: The names of the tensors in the file.

    Raises:
        CheckpointError: The file is frozen, or has a regular network without Fourier convolutions.
    """
    if not names:
        raise CheckpointError(
            "the file is frozen TorchScript, whose parameters are constants without names; save the module before "
            "torch.jit.freeze, or its state_dict()"
        )
    if not any(name.endswith(STEM) for name in names) and any(name.endswith(REGULAR_STEM) for name in names):
        raise CheckpointError(
            "the file is TorchScript of a regular network (LaMa-Regular, LaMa-Dilated), which is not supported; give "
            "its LaMa model folder, or save its state_dict()"
        )


def check(code: str, two_stages: bool = False) -> None:
    """Check that our network gives the same output as TorchScript code.

    Args:
        code: The source text, as torch prints the code of a traced or scripted network.
        two_stages: Whether the file has a coarse network, whose picture is enlarged by interpolation.

    Raises:
        CheckpointError: The code has an activation after the head that is not a sigmoid, an FFT norm other than
            "ortho", a dilation other than 1, padding with zeros, replication or repetition, an activation other than
            ReLU, or an interpolation. The message names the function and the setting.
    """
    if "tanh" in code or "sigmoid" not in code:
        found = "a tanh" if "tanh" in code else "no sigmoid"
        raise CheckpointError(f"the code has {found}; only networks that end in a sigmoid are supported")
    for function, arguments in _calls(code):
        if _FOREIGN_FUNCTION.fullmatch(function) and not (two_stages and function == "upsample_bilinear2d"):
            raise CheckpointError(
                f"the code calls {excerpt(function)}; only the functions of the published LaMa are supported"
            )
        if _TRANSFORM.fullmatch(function):
            _check(function, "norm", arguments[3] if len(arguments) > 3 else "None", ('"ortho"',))
        elif function == "pad" and arguments[2:3] and arguments[2] in _REFUSED_PAD_MODES:
            _check(function, "mode", arguments[2], ('"reflect"',))
        for name, place in _CONVOLUTIONS.get(function, {}).items():
            if len(arguments) > place:
                _check(function, name, arguments[place], _SUPPORTED[name])
        if function in ("_convolution", "convolution") and arguments[6:7] == ["False"]:
            _check(function, "padding", arguments[4], _SUPPORTED["padding"])


def _check(function: str, name: str, found: str, supported: tuple[str, ...]) -> None:
    if found not in supported:
        raise CheckpointError(
            f"the code calls {function} with {name} {excerpt(found, 40)}; only {supported[0]} is supported"
        )


def _calls(code: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the function of each call, without its module, and the arguments. Nested calls are found in one pass.

    A variable with a literal value is replaced by the literal.
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
