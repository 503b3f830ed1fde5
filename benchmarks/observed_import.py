# SPDX-License-Identifier: Apache-2.0
"""What CPU time it costs to note an import, against imports that nobody notes.

Of empty modules, the quickest that a real child imports; and of one that is not there and that no finder is asked for,
where what is left of the difference is ours alone.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pairs import Figure, figure, in_turn, medians, progress, ratios

import frostfork
from frostfork import _core

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME = "observed_import"
GOAL = 1.15
_MODULES = [f"frostfork_empty_{number}" for number in range(300)]
_ABSENT = 5_000


def run(*, quick: bool) -> list[Figure]:
    progress(f"{NAME}: imports that nobody and that somebody notes")
    pairs = 10 if quick else 60
    with _folder():
        empty = in_turn(_import_empty, _noted(_import_empty), pairs)
    with _no_finders():
        absent = in_turn(_import_absent, _noted(_import_absent), pairs)
    names = ("plain", "noted")
    costs = [(noted - plain) / _ABSENT / 1e3 for plain, noted in absent]
    return [
        figure(
            NAME,
            "an empty module",
            ratios(empty),
            GOAL,
            detail=medians(empty, names, 1e-3 / len(_MODULES), "us"),
        ),
        figure(
            NAME, "the record", costs, None, unit="us", detail=medians(absent, names, 1e-3 / _ABSENT, "us")
        ),
    ]


@contextmanager
def _folder() -> Iterator[None]:
    unwritten, sys.dont_write_bytecode = sys.dont_write_bytecode, False
    with tempfile.TemporaryDirectory(prefix="frostfork-bench-") as folder:
        for name in _MODULES:
            Path(folder, f"{name}.py").touch()
        sys.path.insert(0, folder)
        importlib.invalidate_caches()
        try:
            yield
        finally:
            sys.path.remove(folder)
            sys.dont_write_bytecode = unwritten


@contextmanager
def _no_finders() -> Iterator[None]:
    class Finder:
        @staticmethod
        def find_spec(*_: object) -> None:
            return None

    finders, sys.meta_path[:] = sys.meta_path[:], [Finder]
    try:
        yield
    finally:
        sys.meta_path[:] = finders


def _import_empty() -> int:
    for name in _MODULES:
        sys.modules.pop(name, None)
    start = time.process_time_ns()
    for name in _MODULES:
        importlib.import_module(name)
    return time.process_time_ns() - start


def _import_absent() -> int:
    start = time.process_time_ns()
    for _ in range(_ABSENT):
        try:
            import frostfork_is_not_there  # noqa: F401 - the import is what is timed
        except ImportError:
            pass
    return time.process_time_ns() - start


def _noted(imports: Callable[[], int]) -> Callable[[], int]:
    def measure() -> int:
        journal = frostfork.Journal()
        _core.imports_start(journal.fileno())
        try:
            return imports()
        finally:
            _core.imports_stop()
            journal.close()

    return measure
