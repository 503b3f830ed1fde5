# SPDX-License-Identifier: Apache-2.0
"""A process that owns what must be given back at a normal end, works, and ends. tools/test-exit runs it under valgrind.

    python exit_work.py plain|warmed FOLDER

"warmed": warms this process before and in the midst of its work. FOLDER gets a file for each owner of an open file; the
text "kept" is in it only if it was written out at the end, by the child that ends normally and by the parent.
"""

from __future__ import annotations

import asyncio
import atexit
import decimal
import gc
import importlib
import io
import json
import os
import re
import sys
import threading
import types
import typing
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

HOW, FOLDER = sys.argv[1:]


def unflushed(name: str) -> typing.TextIO:
    """A file with text that only its own end writes out."""
    file = open(os.path.join(FOLDER, name), "w")  # noqa: SIM115
    file.write("kept")
    return file


class Owner:
    """An instance that owns a file."""

    def __init__(self, name: str) -> None:
        self.file = unflushed(name)


class Held:
    """A class that owns a file."""

    file = unflushed("of a class")


def closure(file: typing.TextIO) -> Callable[[], str]:
    return lambda: file.name


def generator(file: typing.TextIO) -> Iterator[str]:
    yield file.name


in_module = unflushed("of a module")
in_list = [unflushed("of a list")]
in_nested: dict[str, object] = {"a": [{"b": (unflushed("of a nested dict"),)}]}
in_instance = Owner("of an instance")
in_list_of_instances = [Owner("of an instance in a list")]
in_closure = closure(unflushed("of a closure"))
in_generator = generator(unflushed("of a generator"))
next(in_generator)
in_default = lambda file=unflushed("of a default"): file  # noqa: B008, E731
in_function = closure
in_function.file = unflushed("of a function")
in_bytes = [io.BufferedWriter(io.FileIO(os.path.join(FOLDER, "of a raw file"), "w"))]
in_bytes[0].write(b"kept")
finalized = [weakref.finalize(Held, print, "finalized")]
in_cycle: list[object] = [unflushed("of a cycle")]
in_cycle.append(in_cycle)
local = threading.local()
local.files = [unflushed("of a thread's own")]
atexit.register(lambda: print("at exit:", len(in_nested)))


def warm() -> None:
    if HOW == "warmed":
        import frostfork

        steps = frostfork.warmup().steps.values()
        assert not [step for step in steps if step.status == "failed"], steps


async def gathered() -> list[int]:
    async def one(number: int) -> int:
        await asyncio.sleep(0)
        return number * 2

    return await asyncio.gather(*map(one, range(5)))


def work() -> None:
    """What changes, replaces and frees objects that were there at the warmup."""
    print(json.dumps({"a": [1, 2.5, None]}), re.sub(r"(\d+)", r"<\1>", "a1b22"), decimal.Decimal("1.1") * 3)
    print(asyncio.run(gathered()))
    with ThreadPoolExecutor(2) as pool:
        print(sum(pool.map(len, ["ab"] * 50)))
    module = types.ModuleType("made")
    exec("class A:\n    def f(self): return [x for x in range(3)]\na = A().f()", module.__dict__)
    print(module.a)
    # Warmed containers that grow, shrink and lose what they held.
    in_nested.update((str(number), []) for number in range(1000))
    in_nested.pop("7")
    COLLECTED.extend(range(5000))
    COLLECTED.clear()
    Owner.extra = list(range(100))
    del Owner.extra
    in_function.__code__ = in_function.__code__.replace(co_name="renamed")
    importlib.reload(sys.modules["json.decoder"])
    for name in ("decimal", "_pydecimal", "statistics"):
        sys.modules.pop(name, None)
    try:
        json.loads("[1, ")
    except ValueError as error:
        print(error, error.__traceback__ is not None)
    print(gc.collect() >= 0)


COLLECTED: list[int] = []


def child() -> None:
    """A child that works and ends through the interpreter's whole exit, or at once."""
    for normal in (True, False):
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            in_module.flush()
            work()
            sys.stdout.flush()
            if normal:
                sys.exit(0)
            os._exit(0)
        print("child", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


if __name__ == "__main__":
    warm()
    work()
    child()
    warm()
    work()
    print("end")
