# SPDX-License-Identifier: Apache-2.0
"""frostfork.fork() of a parent whose pages were collapsed into huge ones, against os.fork() of one whose were not.

Two parents of 1 GB of small objects live side by side and fork in turn. The memory of a child that writes here and
there is compared as well: a write into a shared huge page must copy a small page, not a huge one.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from pairs import BenchmarkError, Figure, figure, in_turn, medians, progress, ratios, small_objects

import frostfork

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "collapse"
GOAL = 1 / 6
_MEMORY_GOAL = 1.05
_MEGABYTES = 1000


def run(*, quick: bool) -> list[Figure]:
    pairs = 10 if quick else 100
    progress(f"{NAME}: two parents of {_MEGABYTES:,} MB, one with huge pages")
    with _Parent("plain") as plain, _Parent("collapsed") as collapsed:
        made = collapsed.ask("report")
        if not made["count"]:
            raise BenchmarkError(f"nothing was collapsed: {made['reason']}")
        measured = in_turn(lambda: plain.ask("fork"), lambda: collapsed.ask("fork"), pairs)
        private = in_turn(lambda: plain.ask("write"), lambda: collapsed.ask("write"), max(pairs // 20, 2))
    names = ("os.fork", "frostfork.fork after collapse")
    found = []
    for at, (moment, goal) in enumerate((("until it returns", GOAL), ("until the child is reaped", None))):
        sides = [(first[at], second[at]) for first, second in measured]
        detail = medians(sides, names, 1e-6, "ms")
        if at == 0:
            detail += f"; {made['text']}"
        found.append(figure(NAME, f"{_MEGABYTES:,} MB, {moment}", ratios(sides), goal, detail=detail))
    detail = medians(private, names, 1e-6, "MB")
    found.append(
        figure(NAME, "private memory of a child that writes", ratios(private), _MEMORY_GOAL, detail=detail)
    )
    return found


class _Parent:
    """A process that does what it is asked to, a line each way."""

    def __init__(self, kind: str) -> None:
        command = [sys.executable, __file__, "--kind", kind, "--megabytes", str(_MEGABYTES)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, what: str) -> Any:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(what + "\n")
        stdin.flush()
        answer = stdout.readline()
        if not answer:
            raise BenchmarkError(f"a parent of {_MEGABYTES:,} MB ended early")
        return json.loads(answer)

    def __enter__(self) -> _Parent:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)


def _timed(fork: Callable[[], int]) -> tuple[int, int]:
    start = time.perf_counter_ns()
    pid = fork()
    if pid == 0:
        os._exit(0)
    returned = time.perf_counter_ns() - start
    os.waitpid(pid, 0)
    return (returned, time.perf_counter_ns() - start)


def _written(fork: Callable[[], int], held: list[Any]) -> int:
    """Private bytes of a child that makes every 2,048th list longer."""
    out, into = os.pipe()
    pid = fork()
    if pid == 0:
        for made in held[::2048]:
            made.append(None)
        with open("/proc/self/smaps_rollup") as rollup:
            sums = dict(re.findall(r"^(\w+): +(\d+) kB", rollup.read(), re.M))
        os.write(into, str(1024 * (int(sums["Private_Clean"]) + int(sums["Private_Dirty"]))).encode())
        os._exit(0)
    os.close(into)
    size = int(os.read(out, 100))
    os.close(out)
    os.waitpid(pid, 0)
    return size


def _report(collapsed: bool) -> dict[str, object]:
    if not collapsed:
        return {"count": 0, "reason": "plain", "text": ""}
    step = frostfork.warmup(steps=["collapse"]).steps["collapse"]
    grown = step.details.get("resident_growth", 0)
    text = f"{step.count} huge pages made in {step.seconds:.2f} s, resident memory + {grown / 1e6:.1f} MB"
    return {"count": step.count, "reason": step.reason, "text": text}


def main() -> None:
    parser = argparse.ArgumentParser(
        description="One parent; answers the lines fork, write and report in JSON."
    )
    parser.add_argument("--kind", choices=("plain", "collapsed"), required=True)
    parser.add_argument("--megabytes", type=int, required=True)
    options = parser.parse_args()
    # A collection that falls into one side would be counted as that side's fork.
    gc.disable()
    held: list[Any] = small_objects(options.megabytes << 20)
    fork = frostfork.fork if options.kind == "collapsed" else os.fork
    made = _report(options.kind == "collapsed")
    for line in sys.stdin:
        what = line.strip()
        answer = made if what == "report" else _timed(fork) if what == "fork" else _written(fork, held)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
