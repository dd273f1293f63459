"""Read pickles as data: dicts, lists, tuples, numbers and strings. Nothing is imported, called or hashed.

Python's own unpickler runs code unless it is restricted. This reader cannot run code: a class or function becomes a
:class:`Global`, and an object of an unknown class becomes a :class:`Stub`. Only strings are kept as keys of a dict. The
work is bounded by the pickle's length, independent of references inside the pickle.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from glama_deploy.errors import CheckpointError
from glama_deploy.text.excerpts import excerpt, first_line

#: Largest number of operations. A training checkpoint of LaMa with 18 blocks and optimizers has about 100,000.
MAX_OPERATIONS = 1_000_000

#: Operations that push their argument.
_ARGUMENTS = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    )
)

#: Operations that push a constant.
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}

#: Operations that make a tuple, and its length.
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True)
class Global:
    """A class or function in a pickle.

    Attributes:
        module: Name of the module.
        name: Name in the module.
    """

    module: str
    name: str


class Stub:
    """A placeholder for an object of an unknown class.

    Attributes:
        state: Attributes and entries whose names are strings.
    """

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}


#: Returns the value of a call of a known function, from the call's arguments.
Rebuild = Callable[[tuple[Any, ...]], Any]


def read(file: BinaryIO, rebuild: Mapping[Global, Rebuild], persistent: Callable[[Any], Any]) -> Any:
    """Read one pickle. The position of the file is then after the pickle.

    Args:
        file: A file in memory. (With a file on disk, a few bytes of a pickle could cause a read of gigabytes.)
        rebuild: Readers of calls, by function. A call of any other function becomes a :class:`Stub`.
        persistent: Returns the value of a persistent id.

    Returns:
        The object in the pickle.

    Raises:
        CheckpointError: The data is not a pickle, is damaged, has an operation that torch does not write, or has more
            than `MAX_OPERATIONS` operations.
    """
    machine = _Machine(rebuild, persistent)
    try:
        for number, (operation, argument, _) in enumerate(pickletools.genops(file)):
            if number == MAX_OPERATIONS:
                raise CheckpointError(f"the pickle has more than {MAX_OPERATIONS} operations; a checkpoint has fewer")
            if operation.name == "STOP":
                return machine.pop()
            machine.run(operation.name, argument)
    except (IndexError, KeyError) as error:
        raise CheckpointError("the pickle is damaged (an operation reads a value that does not exist)") from error
    except (ValueError, TypeError, ArithmeticError) as error:
        raise CheckpointError(f"the pickle is damaged ({first_line(error)})") from error
    raise CheckpointError("the pickle has no end; the file is truncated")


class _Machine:
    """The stack, the marks and the memo of a pickle.

    Args:
        rebuild: Readers of calls, by function.
        persistent: Returns the value of a persistent id.
    """

    def __init__(self, rebuild: Mapping[Global, Rebuild], persistent: Callable[[Any], Any]) -> None:
        self._rebuild, self._persistent = rebuild, persistent
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._copied = 0

    def pop(self) -> Any:
        return self._stack.pop()

    def run(self, name: str, argument: Any) -> None:
        # Raises IndexError or KeyError where the operation reads a value that does not exist.
        if name in _ARGUMENTS:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            self._stack[-_TUPLES[name] :] = [tuple(self._last(_TUPLES[name]))]
        elif (operation := getattr(self, f"_{name.lower()}", None)) is not None:
            operation() if argument is None else operation(argument)
        else:
            raise CheckpointError(f"the pickle uses {name}, which torch does not write")

    def _last(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise IndexError
        return self._stack[-count:]

    def _take_marked(self) -> list[Any]:
        items, self._stack = self._stack, self._marked.pop()
        return items

    def _proto(self, _: int) -> None: ...

    def _frame(self, _: int) -> None: ...

    def _mark(self) -> None:
        self._marked.append(self._stack)
        self._stack = []

    def _pop(self) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._take_marked()

    def _pop_mark(self) -> None:
        self._take_marked()

    def _dup(self) -> None:
        self._stack.append(self._stack[-1])

    # the memo: numbered objects that later operations read again

    def _put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    _binput = _long_binput = _put

    def _memoize(self) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    _binget = _long_binget = _get

    # containers

    def _empty_dict(self) -> None:
        self._stack.append({})

    def _empty_list(self) -> None:
        self._stack.append([])

    _empty_set = _empty_list

    def _tuple(self) -> None:
        items = self._take_marked()
        self._stack.append(tuple(items))

    def _list(self) -> None:
        items = self._take_marked()
        self._stack.append(items)

    _frozenset = _list

    def _dict(self) -> None:
        items = self._take_marked()
        self._stack.append({})
        self._store(items)

    def _setitem(self) -> None:
        items = self._last(2)
        del self._stack[-2:]
        self._store(items)

    def _setitems(self) -> None:
        self._store(self._take_marked())

    def _append(self) -> None:
        self._extend([self._stack.pop()])

    def _appends(self) -> None:
        self._extend(self._take_marked())

    _additems = _appends

    def _store(self, items: list[Any]) -> None:
        """Put alternating keys and values into the container on top. Keys that are not strings are left out."""
        target = self._stack[-1]
        entries = target.state if isinstance(target, Stub) else target
        if not isinstance(entries, dict) or len(items) % 2:
            raise TypeError("entries are added to an object that is not a dict")
        entries.update((key, value) for key, value in zip(items[::2], items[1::2], strict=True) if type(key) is str)

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target += items
        elif not isinstance(target, Stub):  # items of objects of unknown classes are not kept
            raise TypeError("items are added to an object that is not a list")

    # classes, functions and their objects

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._stack.append(Global(module, name))

    def _stack_global(self) -> None:
        module, name = self._last(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError("the name of a class is not a string")
        self._stack[-2:] = [Global(module, name)]

    def _reduce(self) -> None:
        function, arguments = self._last(2)
        del self._stack[-2:]
        self._call(function, arguments)

    _newobj = _reduce

    def _newobj_ex(self) -> None:
        kind, arguments, _ = self._last(3)
        del self._stack[-3:]
        self._call(kind, arguments)

    def _call(self, function: Any, arguments: Any) -> None:
        if not isinstance(arguments, tuple):
            raise TypeError("a call has no tuple of arguments")
        known = self._rebuild.get(function) if isinstance(function, Global) else None
        self._stack.append(Stub() if known is None else known(arguments))

    def _build(self) -> None:
        state = self._stack.pop()
        target = self._stack[-1]
        if isinstance(target, Stub):
            parts = state if isinstance(state, tuple) else (state,)
            for part in parts:
                if isinstance(part, dict):
                    self._copied += len(part)
                    if self._copied > MAX_OPERATIONS:
                        raise CheckpointError(
                            f"the pickle copies more than {MAX_OPERATIONS} entries; a checkpoint has fewer"
                        )
                    target.state.update(part)
        elif not isinstance(target, dict):  # the state of an OrderedDict is torch's _metadata
            raise CheckpointError(
                f"the pickle sets the state of {excerpt(target)}; only objects with attributes are supported"
            )

    def _binpersid(self) -> None:
        self._stack.append(self._persistent(self._stack.pop()))
