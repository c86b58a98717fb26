"""Plain values in a pickle, read without unpickling: nothing that a file names is imported, called or built.

A pickle is a program for a small machine. Here is a machine that knows numbers, strings and plain containers, and none of
the instructions that name, call or build anything else; the bytes are taken apart by the standard library's
disassembler, which runs nothing. Whatever it does not know is refused by name.
"""

import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from l4s.errors import DataError

DEEPEST = 20  # containers within containers
SCALARS = {"numpy.core.multiarray scalar", "numpy._core.multiarray scalar"}
DTYPE = "numpy dtype"
FORMATS = {"f8": "d", "f4": "f", "i8": "q", "i4": "i", "u8": "Q", "u4": "I", "b1": "?"}
CONSTANTS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "STRING", "SHORT_BINSTRING", "BINSTRING"),
}
IDLE = {"PROTO", "FRAME"}
SHAREABLE = str | int | float | bool | None


class _Mark:
    """Where the items of a container begin on the stack."""


@dataclass
class _Name:
    """A global that the file names. It is a text here; nothing is looked up."""

    text: str


@dataclass
class _Dtype:
    """What describes a number of numpy: its kind and width, such as f8, and its byte order once that is known."""

    kind: str
    order: str = ""


@dataclass
class _Bytes:
    """Bytes, which only numbers of numpy may hold."""

    data: bytes


@dataclass
class _Machine:
    """The stack, and what was put aside for later use."""

    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def pop(self, kind: type = object) -> Any:
        value = self.stack.pop()
        if not isinstance(value, kind) or isinstance(value, _Mark):
            raise ValueError(f"a {type(value).__name__} stands where a {kind.__name__} should")
        return value

    def since_mark(self) -> list[Any]:
        """What was pushed since the last mark; both leave the stack."""
        place = next(k for k in range(len(self.stack) - 1, -1, -1) if isinstance(self.stack[k], _Mark))
        items = self.stack[place + 1 :]
        del self.stack[place:]
        return items


def parse(data: bytes, where: str) -> Any:
    """The plain value in a pickle of any protocol.

    Raises:
        DataError: it is broken, or holds anything but plain values.
    """
    machine = _Machine()
    try:
        for opcode, argument, place in pickletools.genops(data):
            if opcode.name == "STOP" and place is not None:
                return _finish(machine, data, place)
            _step(machine, opcode.name, argument)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    except (ValueError, TypeError, IndexError, KeyError, StopIteration, OverflowError, struct.error) as error:
        raise DataError(f"{where} is a broken pickle ({error}): download it again") from error
    raise DataError(f"{where} is a pickle without an end: download it again")


def _step(machine: _Machine, name: str, argument: Any) -> None:
    if name in CONSTANTS:
        machine.stack.append(argument)
    elif name in PUTS:
        machine.memo[len(machine.memo) if argument is None else int(argument)] = machine.stack[-1]
    elif name in GETS:
        machine.stack.append(_shared(machine.memo[int(argument)]))
    elif name in STEPS:
        STEPS[name](machine)
    elif name in NAMES:
        # GLOBAL comes with module and name, STACK_GLOBAL finds them on the stack
        words = argument if name != "STACK_GLOBAL" else " ".join(reversed([machine.pop(str), machine.pop(str)]))
        machine.stack.append(_known(str(words)))
    elif name in BYTES:
        machine.stack.append(_Bytes(bytes(argument)))
    elif name not in IDLE:
        raise DataError(f"it holds the instruction {name}, which plain values do not need: it may be an attack")


def _known(words: str) -> _Name:
    if words not in {*SCALARS, DTYPE}:
        raise DataError(f"it names {words!r}, which is no plain value: it may be an attack, and nothing was run")
    return _Name(words)


def _shared(value: Any) -> Any:
    # a container that is used twice may hold itself, or unfold to any size
    if isinstance(value, SHAREABLE | _Name | _Dtype):
        return value
    raise DataError(f"it uses a {type(value).__name__} twice, which the metadata of a chip do not: it may be an attack")


def _finish(machine: _Machine, data: bytes, place: int) -> Any:
    if place + 1 != len(data) or len(machine.stack) != 1:
        raise ValueError("something is left after its end")
    _refuse_other(machine.stack[0])
    return machine.stack[0]


def _refuse_other(value: Any, depth: int = 0) -> None:
    if depth > DEEPEST:
        raise DataError(f"its containers are more than {DEEPEST} deep: it may be an attack")
    inside: list[Any] = []
    if isinstance(value, dict):
        inside = [*value, *value.values()]
    elif isinstance(value, list | tuple):
        inside = list(value)
    elif not isinstance(value, SHAREABLE):
        raise DataError(f"it holds {type(value).__name__.strip('_').lower()}, which is no plain value")
    for item in inside:
        _refuse_other(item, depth + 1)


def _append(machine: _Machine) -> None:
    _extend(machine, [machine.pop()])


def _appends(machine: _Machine) -> None:
    _extend(machine, machine.since_mark())


def _extend(machine: _Machine, items: list[Any]) -> None:
    if not isinstance(machine.stack[-1], list):
        raise ValueError(f"items are added to a {type(machine.stack[-1]).__name__}")
    machine.stack[-1] += items


def _set_items(machine: _Machine, items: list[Any]) -> None:
    table = machine.stack[-1]
    if not isinstance(table, dict) or len(items) % 2:
        raise ValueError(f"keys and values are added to a {type(table).__name__}")
    table.update(_pair_up(items))


def _pair_up(items: list[Any]) -> dict[Any, Any]:
    if any(not isinstance(key, SHAREABLE) for key in items[::2]):  # to hash a deep tuple takes a deep stack
        raise DataError("it has a key that is neither a number nor a text")
    return dict(zip(items[::2], items[1::2], strict=True))


def _set_item(machine: _Machine) -> None:
    value, key = machine.pop(), machine.pop()
    _set_items(machine, [key, value])


def _tuple(count: int) -> Callable[[_Machine], None]:
    def step(machine: _Machine) -> None:
        machine.stack.append(tuple(reversed([machine.pop() for _ in range(count)])))

    return step


def _call(machine: _Machine) -> None:
    """The two calls that make up a number of numpy: a dtype of its kind, and a scalar of a dtype and bytes."""
    arguments, called = machine.pop(tuple), machine.pop(_Name)
    if called.text == DTYPE and arguments and isinstance(arguments[0], str) and arguments[0] in FORMATS:
        machine.stack.append(_Dtype(arguments[0]))
    elif called.text in SCALARS and len(arguments) == 2 and isinstance(arguments[1], _Bytes):
        machine.stack.append(_number(*arguments))
    else:
        raise DataError(f"it makes a {called.text} that is no plain number")


def _number(dtype: Any, value: _Bytes) -> float | int | bool:
    if not isinstance(dtype, _Dtype) or dtype.order not in ("<", ">", "|"):
        raise ValueError("a number without a type")
    number: float | int | bool
    [number] = struct.unpack(dtype.order.replace("|", "<") + FORMATS[dtype.kind], value.data)
    return number


def _build(machine: _Machine) -> None:
    """What numpy adds to a dtype; of it, the byte order counts."""
    state, dtype = machine.pop(tuple), machine.stack[-1]
    if not isinstance(dtype, _Dtype) or len(state) < 2 or state[1] not in ("<", ">", "|"):
        raise DataError("it changes an object's state, which plain values do not have: it may be an attack")
    dtype.order = state[1]


STEPS: dict[str, Callable[[_Machine], None]] = {
    "MARK": lambda m: m.stack.append(_Mark()),
    "NONE": lambda m: m.stack.append(None),
    "NEWTRUE": lambda m: m.stack.append(True),
    "NEWFALSE": lambda m: m.stack.append(False),
    "EMPTY_LIST": lambda m: m.stack.append([]),
    "EMPTY_DICT": lambda m: m.stack.append({}),
    "EMPTY_TUPLE": lambda m: m.stack.append(()),
    "LIST": lambda m: m.stack.append(m.since_mark()),
    "TUPLE": lambda m: m.stack.append(tuple(m.since_mark())),
    "DICT": lambda m: m.stack.append(_pair_up(m.since_mark())),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "APPEND": _append,
    "APPENDS": _appends,
    "SETITEM": _set_item,
    "SETITEMS": lambda m: _set_items(m, m.since_mark()),
    "REDUCE": _call,
    "BUILD": _build,
}
"""Instruction -> what it does to the stack."""

PUTS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
GETS = {"GET", "BINGET", "LONG_BINGET"}
NAMES = {"GLOBAL", "STACK_GLOBAL"}
BYTES = {"SHORT_BINBYTES", "BINBYTES", "BINBYTES8"}
