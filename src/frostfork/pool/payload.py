# SPDX-License-Identifier: Apache-2.0
"""Objects as bytes: small ones for a frame, large buffers for memory that the other side maps.

A pickle of protocol 5 leaves large buffers (arrays, PickleBuffer) out. They are written once, into a memfd, and the
receiver builds its objects over the mapped file: nobody copies them a second time. The memory is the receiver's
alone, so it may write into what it was given.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from frostfork._core import Mapping, Names

if TYPE_CHECKING:
    from frostfork.pool.main_names import MainNames

# From about here on mapping is quicker than two copies through a socket.
LARGE_BYTES = 64 << 10
TABLE = 2  # in a frame's flags: sizes of parts come first
_ALIGN = 64
_MOST_PIECES = 512  # in one writev; the kernel's limit is 1024
_SIZE = 8
_MOST_FUNCTIONS = 256
_SMALL = frozenset((bool, float, int, type(None)))


CALL = 4  # in a frame's flags: the length of the function's pickle, that, and the pickle of its arguments


class Payload:
    """A pickled object whose parts are still where they were: what `write` puts into a memfd."""

    __slots__ = ("parts", "table")

    def __init__(self, parts: list[Any]) -> None:
        self.parts = parts
        self.table = b"".join(len(part).to_bytes(_SIZE, "little") for part in parts)

    @property
    def size(self) -> int:
        return sum(map(len, self.parts))

    def pieces(self) -> list[Any]:
        """The parts, each filled up so that the next one is aligned."""
        return [piece for part in self.parts for piece in (part, b"\0" * (-len(part) % _ALIGN)) if len(piece)]

    def write(self) -> int:
        """A new memfd that holds it all, the caller's to close. OSError without descriptors or memory."""
        fd = os.memfd_create("frostfork-payload")
        try:
            _write(fd, self.pieces())
        except BaseException:
            os.close(fd)
            raise
        return fd


def encode(value: object, names: MainNames | None = None) -> bytes | Payload:
    """Pickle it. names: the functions and classes of __main__ that go by name; all others must go by value.

    cloudpickle, where installed, does that, and takes what pickle refuses, such as lambdas. Raises what pickle raises.
    """
    if type(value) in _SMALL:
        data = pickle.dumps(value, 5)
        return data if len(data) < LARGE_BYTES else Payload([data])
    buffers: list[pickle.PickleBuffer] = []
    try:
        data = pickle.dumps(value, 5, buffer_callback=buffers.append)
    except (pickle.PicklingError, AttributeError, TypeError):
        cloudpickle = find_cloudpickle()
        if cloudpickle is None:
            raise
        buffers.clear()
        data = cloudpickle.dumps(value, 5, buffer_callback=buffers.append)
    else:
        if names is not None and b"__main__" in data and (strange := _find_strange(value, names)):
            cloudpickle = find_cloudpickle()
            if cloudpickle is not None:
                buffers.clear()
                data = cloudpickle.dumps(value, 5, buffer_callback=buffers.append)
            elif names.complete:
                raise pickle.PicklingError(
                    f"workers do not know {strange} of __main__: define it at the top level of a file, before the pool "
                    "is made, or install cloudpickle, which sends it by value"
                )
    if not buffers and len(data) < LARGE_BYTES:
        return data
    return Payload([data, *(buffer.raw() for buffer in buffers)])


class _Finder(pickle.Pickler):
    """Notes what goes by name and would not be found."""

    def __init__(self, names: MainNames) -> None:
        super().__init__(_Nowhere(), 5, buffer_callback=lambda _: False)
        self._names = names
        self.found = ""

    def reducer_override(self, value: Any) -> Any:
        if (
            isinstance(value, (type, FunctionType))
            and value.__module__ == "__main__"
            and self._names.lack(value)
        ):
            self.found = self.found or value.__qualname__
        return NotImplemented


class _Nowhere:
    def write(self, data: Any) -> int:
        return len(data)


def _find_strange(value: object, names: MainNames) -> str:
    finder = _Finder(names)
    finder.dump(value)
    return finder.found


class Calls(Names):
    """Pickles calls. A function that goes by its name is pickled once, and workers look it up by that pickle."""

    def __init__(self, names: MainNames) -> None:
        self._names = names

    def encode(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[bytes | Payload, int]:
        """What is to be sent, and the frame's flags. Raises what pickle raises."""
        if not kwargs and (type(function) is FunctionType or _is_of_module(function)):
            head = self.known.get(function) or self._add(function)
            if head:
                buffers: list[pickle.PickleBuffer] = []
                try:
                    data = pickle.dumps(args, 5, buffer_callback=buffers.append)
                except (pickle.PicklingError, AttributeError, TypeError):
                    pass
                else:
                    if not buffers and len(data) < LARGE_BYTES and b"__main__" not in data:
                        return head + data, CALL
        return encode((function, args, kwargs), self._names), 0

    def _add(self, function: Callable[..., Any]) -> bytes:
        """b"" for one that goes by value, or whose arguments may."""
        head = b""
        if function.__module__ != "__main__" or not self._names.lack(function):
            try:
                name = pickle.dumps(function, 5)
            except Exception:
                name = b""  # the whole call may be tried with cloudpickle
            if name and len(name) < 1 << 16:
                head = len(name).to_bytes(2, "little") + name
        if len(self.known) >= _MOST_FUNCTIONS:
            self.known.clear()
        self.known[function] = head
        return head


def _is_of_module(function: object) -> bool:
    """A function in C, and no method of an object, which would go along."""
    return type(function) is BuiltinFunctionType and type(function.__self__) is ModuleType


class Functions:
    """The other side: what Calls named, by its pickle."""

    def __init__(self) -> None:
        self._known: dict[bytes, Callable[..., Any]] = {}

    def named(self, name: bytes) -> Callable[..., Any]:
        function = self._known.get(name)
        if function is None:
            function = pickle.loads(name)  # noqa: S301 - from our own kind
            if len(self._known) >= _MOST_FUNCTIONS:
                self._known.clear()
            self._known[name] = function
        return function

    def decode(self, body: bytes) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        end = 2 + body[0] + (body[1] << 8)
        return self.named(body[2:end]), pickle.loads(body[end:])  # noqa: S301 - from our own kind


def frame(payload: bytes | Payload) -> tuple[bytes, int, int]:
    """(body, flags, descriptor or -1) of a frame; the descriptor is the caller's to close."""
    if isinstance(payload, bytes):
        return payload, 0, -1
    head = len(payload.parts).to_bytes(_SIZE, "little") + payload.table
    if payload.size < LARGE_BYTES:
        return b"".join((head, *payload.pieces())), TABLE, -1
    return head, TABLE, payload.write()


def decode(body: bytes, flags: int, fd: int) -> Any:
    """The object of a frame. Closes the descriptor. Raises OSError if it was lost, and what unpickling raises."""
    if not flags & TABLE:
        return pickle.loads(body)  # noqa: S301 - from our own kind
    count = int.from_bytes(body[:_SIZE], "little")
    head = _SIZE * (count + 1)
    sizes = [int.from_bytes(body[at : at + _SIZE], "little") for at in range(_SIZE, head, _SIZE)]
    if fd == -1:
        # Where the sender's buffers were writable, the receiver's are, too.
        memory = memoryview(bytearray(body[head:]))
    else:
        if fd < 0:
            raise OSError(24, "a descriptor could not be received: too many open files in this process")
        try:
            memory = memoryview(Mapping(fd, sum(-(-size // _ALIGN) * _ALIGN for size in sizes)))
        finally:
            os.close(fd)
    data, *buffers = _slices(memory, sizes)
    return pickle.loads(data, buffers=buffers)  # noqa: S301 - from our own kind


def plain(value: object) -> bytes:
    """One pickle of all of it."""
    try:
        return pickle.dumps(value, 5)
    except (pickle.PicklingError, AttributeError, TypeError):
        cloudpickle = find_cloudpickle()
        if cloudpickle is None:
            raise
        data: bytes = cloudpickle.dumps(value, 5)
        return data


def _slices(memory: memoryview, sizes: Sequence[int]) -> Iterator[memoryview]:
    at = 0
    for size in sizes:
        yield memory[at : at + size]
        at += -(-size // _ALIGN) * _ALIGN


def _write(fd: int, pieces: list[Any]) -> None:
    views = [memoryview(piece) for piece in pieces]
    while views:
        written = os.writev(fd, views[:_MOST_PIECES])
        while views and written >= len(views[0]):
            written -= len(views[0])
            del views[0]
        if written:
            views[0] = views[0][written:]


_found: list[ModuleType | None] = []


def find_cloudpickle() -> ModuleType | None:
    if not _found:
        module = None
        with contextlib.suppress(ImportError):
            module = importlib.import_module("cloudpickle")
        _found.append(module)
    return _found[0]
