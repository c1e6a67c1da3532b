"""Torch's files read as data: nothing that a file names is imported, made or called.

A file of `torch.save` is a pickle beside the numbers of its tensors, and a pickle is a program that may name any
function of the machine. Here its instructions are followed on a stack of plain values by `pickletools`, which only
decodes them. What would be an object or a call becomes a `Thing`, which holds names and values and does nothing;
tensors are put together by us, from torch's few functions for them, whose names are compared as text.

Both of torch's formats are read: the zip archive (since torch 1.6) and the stream of pickles before it. Tensors of
sparse layouts and of quantised numbers are `Thing`s, too.
"""

from __future__ import annotations

import pickletools
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

_MAGIC = 0x1950A86A20F9469CFC6C  # what the older format begins with
_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}
_DICTIONARIES = frozenset(
    {"collections.OrderedDict", "collections.defaultdict", "collections.Counter", "builtins.dict", "__builtin__.dict"}
)
_LISTS = frozenset({"builtins.set", "__builtin__.set", "builtins.frozenset", "__builtin__.frozenset", "builtins.list"})


class Malformed(ValueError):
    """Bytes that are no file of torch's, or a damaged one."""


@dataclass(frozen=True)
class Name:
    """What a file calls a function or class; nothing is looked up."""

    path: str


@dataclass(eq=False)
class Thing:
    """What would be an object or the outcome of a call.

    Attributes:
        name: of its class or function, as the file has it.
        items: what was put into it by keys, as into a dictionary.
    """

    name: str
    items: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Storage:
    """Numbers of tensors, which lie elsewhere in the file: `size` of them from `start` on."""

    key: str
    dtype: torch.dtype
    size: int
    start: int = 0


@dataclass(frozen=True, eq=False)
class Plan:
    """A tensor that can be made when its numbers are read."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


def read_inert(path: Path) -> tuple[Any, list[str]]:
    """What a file of torch's holds.

    Args:
        path: the file.

    Returns:
        Its content: tensors on the CPU, dictionaries, lists, tuples and plain values as they are, everything else a
        `Thing`; and the names of those, each once, in the file's order.

    Raises:
        Malformed: if it is no such file, or damaged.
    """
    try:
        with path.open("rb") as file:
            is_archive = file.read(4) == b"PK\x03\x04"
        content, things, load = (_read_archive if is_archive else _read_stream)(path)
        return _filled(content, _Filler(load)), list(dict.fromkeys(things))
    except Malformed:
        raise
    except Exception as error:  # whatever odd bytes make the decoder, the archive or a tensor stumble over
        raise Malformed(f"{type(error).__name__}: {error}") from error


Load = Callable[[_Storage], Tensor]
"""The numbers of a storage, one axis."""


def _read_archive(path: Path) -> tuple[Any, list[str], Load]:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        found = [name for name in names if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(found) != 1:
            raise Malformed("a zip archive that torch.save did not write: it holds no data.pkl")
        root = found[0].removesuffix("data.pkl")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise Malformed("its numbers are big-endian")
        machine = _Machine()
        with archive.open(found[0]) as file:
            content = machine.run(file)

    def load(storage: _Storage) -> Tensor:
        with zipfile.ZipFile(path) as archive:
            return _numbers(archive.read(f"{root}data/{storage.key}"), storage)

    return content, machine.things, load


def _read_stream(path: Path) -> tuple[Any, list[str], Load]:
    with path.open("rb") as file:
        if _Machine().run(file) != _MAGIC:
            raise Malformed("a pickle that torch.save did not write")
        version, about = _Machine().run(file), _Machine().run(file)
        if version != 1001 or (isinstance(about, Mapping) and about.get("little_endian") is False):
            raise Malformed(f"its version is {version}, or its numbers are big-endian")
        machine = _Machine()
        content = machine.run(file)
        places: dict[str, tuple[int, int]] = {}  # where numbers begin, and how many there are
        for key in _Machine().run(file):
            (count,) = struct.unpack("<q", file.read(8))
            storage = machine.storages.get(str(key))
            if storage is None or count < 0:
                raise Malformed(f"numbers of {key!r}, which no tensor has")
            places[str(key)] = (file.tell(), count)
            file.seek(count * storage.dtype.itemsize, 1)

    def load(storage: _Storage) -> Tensor:
        begin, count = places[storage.key]
        with path.open("rb") as file:
            file.seek(begin)
            data = file.read(count * storage.dtype.itemsize)
        return _numbers(data, storage, count)

    return content, machine.things, load


def _numbers(data: bytes, storage: _Storage, count: int | None = None) -> Tensor:
    count = storage.size if count is None else count
    if len(data) < count * storage.dtype.itemsize:
        raise Malformed(f"the file was cut off: {len(data)} bytes for {count} numbers")
    # The copy can be written to, which torch wants.
    return torch.frombuffer(bytearray(data), dtype=storage.dtype) if data else torch.empty(0, dtype=storage.dtype)


class _Filler:
    """Makes tensors of plans; each storage is read once."""

    def __init__(self, load: Load) -> None:
        self.load, self.known = load, dict[str, Tensor]()

    def __call__(self, plan: Plan) -> Tensor:
        key = plan.storage.key
        if key not in self.known:
            self.known[key] = self.load(plan.storage)
        numbers = self.known[key].view(plan.dtype)
        # torch checks that all of it lies inside.
        return torch.as_strided(numbers, plan.size, plan.stride, plan.storage.start + plan.offset)


def _filled(content: Any, fill: Callable[[Plan], Tensor]) -> Any:
    """The content with tensors for plans; each container is filled once, so that circles do no harm."""
    if isinstance(content, Plan):
        return fill(content)
    waiting, seen = [content], set[int]()
    while waiting:
        holder = waiting.pop()
        inside = holder.items if isinstance(holder, Thing) else holder
        if id(inside) in seen or not isinstance(inside, dict | list):
            continue
        seen.add(id(inside))
        for key, value in list(inside.items()) if isinstance(inside, dict) else list(enumerate(inside)):
            if isinstance(value, Plan):
                inside[key] = fill(value)
            elif isinstance(value, tuple):
                inside[key] = [*value]  # tuples can't be filled; a list reads the same
                waiting.append(inside[key])
            else:
                waiting.append(value)
    return content


class _Machine:
    """Follows the instructions of one pickle.

    Attributes:
        things: names of what was not made, in order.
        storages: those that tensors have, by their keys.
    """

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.things: list[str] = []
        self.storages: dict[str, _Storage] = {}

    def run(self, file: IO[bytes]) -> Any:
        """Read one pickle from a file, which is then behind it; what it holds, with plans for tensors."""
        for code, argument, _ in pickletools.genops(file):
            name = code.name
            if name == "STOP":
                break
            if code.arg is not None and name in _CONSTANTS:
                self.stack.append(argument)
            elif name in ("PROTO", "FRAME"):
                continue
            else:
                act = _ACTIONS.get(name)
                if act is None:
                    raise Malformed(f"the instruction {name} in its pickle")
                act(self, argument)
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        begin = self.marks.pop()
        values = self.stack[begin:]
        del self.stack[begin:]
        return values

    def pop_pair(self) -> tuple[Any, Any]:
        last = self.stack.pop()
        return self.stack.pop(), last

    def put(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    def replace(self, count: int, make: Callable[[list[Any]], Any]) -> None:
        values = self.stack[len(self.stack) - count :]
        if len(values) < count:
            raise Malformed("its pickle takes more from the stack than there is")
        del self.stack[len(self.stack) - count :]
        self.stack.append(make(values))

    def set_items(self, pairs: list[Any]) -> None:
        holder = self.stack[-1]
        inside = holder.items if isinstance(holder, Thing) else holder
        if isinstance(inside, dict):
            inside.update(zip(pairs[::2], pairs[1::2], strict=True))

    def extend(self, values: list[Any]) -> None:
        holder = self.stack[-1]
        if isinstance(holder, list):
            holder.extend(values)

    def call(self, function: Any, arguments: Any) -> Any:
        """What a call stands for: a container, a tensor's plan, or a thing."""
        name = function.path if isinstance(function, Name) else getattr(function, "name", "something")
        given = list(arguments) if isinstance(arguments, tuple | list) else []
        if name in _DICTIONARIES:
            return dict(given[-1]) if given and isinstance(given[-1], dict | list) else {}
        if name in _LISTS:
            return list(given[0]) if given and isinstance(given[0], list | tuple) else []
        if name == "_codecs.encode" and len(given) == 2 and isinstance(given[0], str) and given[1] == "latin1":
            return given[0].encode("latin-1")  # bytes, in the protocols that have none
        module, _, short = name.rpartition(".")
        if module == "torch._utils" and given:
            if short in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
                return given[0]
            if short in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"):
                return self._plan(given, short)
        self.things.append(name)
        return Thing(name)

    def _plan(self, given: list[Any], short: str) -> Plan:
        storage, offset, size, stride = given[:4]
        dtype = storage.dtype
        if short == "_rebuild_tensor_v3":
            word = given[6].path.removeprefix("torch.")
            dtype = next(each for each in _V3_DTYPES if str(each) == f"torch.{word}")
        return Plan(storage, int(offset), tuple(map(int, size)), tuple(map(int, stride)), dtype)

    def stored(self, given: Any) -> Any:
        """A storage of ("storage", its class, key, device, count, and in the older format whose part it is)."""
        if not isinstance(given, tuple) or len(given) < 5 or given[0] not in ("storage", b"storage"):
            raise Malformed("its pickle refers to something that is no tensor")
        _, kind, key, _, size, *view = given
        dtype = _DTYPES.get(kind.path.rpartition(".")[2])
        if dtype is None:
            raise Malformed(f"tensors of {kind.path}, which this reader does not know")
        storage = self.storages.setdefault(str(key), _Storage(str(key), dtype, int(size)))
        if storage.dtype != dtype:
            raise Malformed(f"tensors of {dtype} and {storage.dtype} share their numbers")
        if view and view[0] is not None:
            return _Storage(str(key), dtype, int(view[0][2]), int(view[0][1]))
        return storage

    def extension(self, number: int) -> None:
        self.things.append(f"extension {number}")
        self.stack.append(Thing(self.things[-1]))

    def new_with_keywords(self, values: list[Any]) -> Any:
        return self.call(values[0], values[1])

    def build(self, _: Any) -> None:
        """The state of an object is passed over: attributes, which hold nothing that is wanted."""
        self.stack.pop()

    def instance(self, path: str) -> None:
        arguments = self.pop_to_mark()
        self.stack.append(self.call(Name(path.replace(" ", ".")), arguments))

    def old_object(self, _: Any) -> None:
        function, *arguments = self.pop_to_mark()
        self.stack.append(self.call(function, arguments))

    def mark(self, _: Any) -> None:
        self.marks.append(len(self.stack))

    def dictionary(self, _: Any) -> None:
        values = self.pop_to_mark()
        self.stack.append(dict(zip(values[::2], values[1::2], strict=True)))


_V3_DTYPES = (*dict.fromkeys(_DTYPES.values()), torch.uint16, torch.uint32, torch.uint64)
_CONSTANTS = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    }
)
_ACTIONS: dict[str, Callable[[_Machine, Any], object]] = {
    "NONE": lambda m, _: m.stack.append(None),
    "NEWTRUE": lambda m, _: m.stack.append(True),
    "NEWFALSE": lambda m, _: m.stack.append(False),
    "EMPTY_TUPLE": lambda m, _: m.stack.append(()),
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "EMPTY_DICT": lambda m, _: m.stack.append({}),
    "EMPTY_SET": lambda m, _: m.stack.append([]),
    "MARK": _Machine.mark,
    "POP": lambda m, _: m.stack.pop(),
    "POP_MARK": lambda m, _: m.pop_to_mark(),
    "DUP": lambda m, _: m.stack.append(m.stack[-1]),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.pop_to_mark())),
    "TUPLE1": lambda m, _: m.replace(1, tuple),
    "TUPLE2": lambda m, _: m.replace(2, tuple),
    "TUPLE3": lambda m, _: m.replace(3, tuple),
    "LIST": lambda m, _: m.stack.append(m.pop_to_mark()),
    "FROZENSET": lambda m, _: m.stack.append(tuple(m.pop_to_mark())),
    "DICT": _Machine.dictionary,
    "APPEND": lambda m, _: m.extend([m.stack.pop()]),
    "APPENDS": lambda m, _: m.extend(m.pop_to_mark()),
    "ADDITEMS": lambda m, _: m.extend(m.pop_to_mark()),
    "SETITEM": lambda m, _: m.set_items([*m.pop_pair()]),
    "SETITEMS": lambda m, _: m.set_items(m.pop_to_mark()),
    "GLOBAL": lambda m, path: m.stack.append(Name(path.replace(" ", "."))),
    "STACK_GLOBAL": lambda m, _: m.replace(2, lambda values: Name(".".join(map(str, values)))),
    "REDUCE": lambda m, _: m.replace(2, lambda values: m.call(*values)),
    "NEWOBJ": lambda m, _: m.replace(2, lambda values: m.call(*values)),
    "NEWOBJ_EX": lambda m, _: m.replace(3, m.new_with_keywords),
    "INST": _Machine.instance,
    "OBJ": _Machine.old_object,
    "BUILD": _Machine.build,
    "BINPERSID": lambda m, _: m.replace(1, lambda values: m.stored(values[0])),
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": lambda m, _: m.put(len(m.memo)),
    "GET": lambda m, place: m.stack.append(m.memo[place]),
    "BINGET": lambda m, place: m.stack.append(m.memo[place]),
    "LONG_BINGET": lambda m, place: m.stack.append(m.memo[place]),
    "EXT1": _Machine.extension,
    "EXT2": _Machine.extension,
    "EXT4": _Machine.extension,
}
