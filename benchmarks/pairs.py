# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks share: two things measured in turn, the figures that come of it, and the machine they come from.

A time from here is worth little tomorrow, for the clock of a machine varies: the same work takes twice as long an
hour later. So nothing compares with a recorded time. Both sides run in one go, one after the other, and each pair gives
one ratio.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")

PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")


class BenchmarkError(Exception):
    """A benchmark could not run; the message says why."""


@dataclass(frozen=True)
class Figure:
    """One measured figure beside its goal. `median`, quartiles and ends are ratios, or `unit` if that is not "x"."""

    benchmark: str
    name: str
    median: float
    lower_quartile: float
    upper_quartile: float
    least: float
    most: float
    samples: int
    goal: float | None  # at most; None for a figure that only stands beside others
    unit: str = "x"
    detail: str = ""

    @property
    def verdict(self) -> str:
        if self.goal is None:
            return ""
        return "reached" if self.median <= self.goal else "MISSED"

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "reached": None if self.goal is None else self.median <= self.goal}


def figure(
    benchmark: str,
    name: str,
    values: Sequence[float],
    goal: float | None,
    *,
    unit: str = "x",
    detail: str = "",
) -> Figure:
    """Sum up the values of the pairs."""
    lower, middle, upper = quartiles(values)
    return Figure(
        benchmark, name, middle, lower, upper, min(values), max(values), len(values), goal, unit, detail
    )


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    if len(values) == 1:
        return (values[0], values[0], values[0])
    lower, middle, upper = statistics.quantiles(values, n=4, method="inclusive")
    return (lower, middle, upper)


def in_turn(
    first: Callable[[], T], second: Callable[[], T], pairs: int, *, warm_up: bool = True
) -> list[tuple[T, T]]:
    """Call both in turn, `pairs` times each after a pair that does not count; the results pair by pair.

    warm_up: False leaves that pair out, where each run starts from nothing and takes long.

    Every other pair runs the second one first: whoever comes second finds caches and page tables as the other left
    them, and that must not always be the same side.
    """
    if warm_up:
        first(), second()
    results = []
    for at in range(pairs):
        if at % 2 == 0:
            a = first()
            b = second()
        else:
            b = second()
            a = first()
        results.append((a, b))
    return results


def ratios(pairs: Sequence[tuple[float, float]]) -> list[float]:
    """second / first, pair by pair."""
    return [second / first for first, second in pairs]


def medians(pairs: Sequence[tuple[float, float]], names: tuple[str, str], scale: float, unit: str) -> str:
    """Both sides in words: the medians, and the least, which a busy machine disturbs least."""
    sides = zip(names, zip(*pairs, strict=True), strict=True)
    return ", ".join(
        f"{name} {statistics.median(values) * scale:.3g} {unit} (least {min(values) * scale:.3g})"
        for name, values in sides
    )


def resident() -> int:
    """Resident bytes of this process."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * PAGE_SIZE


def small_objects(size: int) -> list[object]:
    """Small objects as programs have them (lists, tuples, strings, dicts): as many as resident memory grows by size."""
    start, made = resident(), list[object]()
    while resident() - start < size:
        made += [[str(i), (i, i + 0.5), {"key": i}] for i in range(len(made), len(made) + 5000)]
    return made


def fresh(script: str, *arguments: object, timeout: float = 900) -> Any:
    """Run a benchmark's own file in a fresh interpreter; what it prints, read as JSON."""
    command = [sys.executable, script, *map(str, arguments)]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=timeout, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise BenchmarkError(
            f"{Path(script).name} did not finish in a process of its own: {error}"
        ) from error
    return json.loads(done.stdout)


def progress(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def environment() -> dict[str, Any]:
    """The machine and the versions, without the machine's name."""
    release = re.match(r"[\d.]+\d", platform.release())
    return {
        "machine": platform.machine(),
        "processor": _first_of("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "memory_kb": int(_first_of("/proc/meminfo", "MemTotal").split()[0]),
        "kernel": release[0] if release else "unknown",
        "huge_pages": _selected("/sys/kernel/mm/transparent_hugepage/enabled"),
        "load_at_start": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "frostfork": metadata.version("frostfork"),
    }


def _first_of(path: str, key: str) -> str:
    for line in Path(path).read_text().splitlines():
        if line.startswith(key):
            return line.partition(":")[2].strip()
    return "0 unknown"


def _selected(path: str) -> str:
    try:
        chosen = re.search(r"\[(\w+)\]", Path(path).read_text())
    except OSError:
        return "unknown"
    return chosen[1] if chosen else "unknown"
