# SPDX-License-Identifier: Apache-2.0
"""Sixteen children that work and collect, for thousands of tasks: does what they share stay shared?

Private bytes of each child, read by itself after the first tasks and after the last; plain forks, forks frozen in the
child, and forks of a warmed parent. The parents differ in nothing else, and each is a process of its own.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
from itertools import pairwise
from typing import Any

import warmed_child
import workload
from pairs import BenchmarkError, Figure, figure, fresh, progress

import frostfork

NAME = "long_life"
_PARENTS = ("plain", "freeze", "warmup")
_FIRST, _COLLECT_EVERY = 50, 50
_GROWTH, _KEPT = 1.0, 0.8

missing = warmed_child.missing


def run(*, quick: bool) -> list[Figure]:
    children, tasks = (2, 200) if quick else (16, 2_000)
    found: dict[str, list[list[int]]] = {}
    for parent in _PARENTS:
        progress(f"{NAME}: {children} children of {tasks:,} tasks each, {parent}")
        found[parent] = fresh(
            __file__, "--parent", parent, "--children", children, "--tasks", tasks, timeout=1800
        )
    plain, ours = found["plain"], found["warmup"]
    growth = [(b[-1] - b[0]) / max(1, a[-1] - a[0]) for a, b in zip(plain, ours, strict=True)]
    # Written the other way round, so that "at most" holds for every figure.
    lost = [1 - (a[-1] - b[-1]) / (a[0] - b[0]) for a, b in zip(plain, ours, strict=True)]
    later = [(b[-1] - b[-3]) / 1e3 for b in ours]
    sides = ", ".join(f"{parent} {_ends(found[parent])}" for parent in _PARENTS)
    quarters = ", ".join(f"{parent} {_quarters(found[parent])}" for parent in _PARENTS)
    return [
        figure(NAME, f"growth over {tasks:,} tasks, warmup / plain", growth, _GROWTH, detail=f"MB: {sides}"),
        figure(
            NAME,
            "growth in the second half, warmup",
            later,
            None,
            unit="kB",
            detail=f"medians by quarters: {quarters}",
        ),
        figure(
            NAME,
            f"gain lost after {tasks:,} tasks",
            lost,
            1 - _KEPT,
            detail="1 - gain at the end / gain at the start",
        ),
    ]


def _ends(children: list[list[int]]) -> str:
    first, last = (statistics.median(child[at] for child in children) / 1e6 for at in (0, -1))
    return f"{first:.1f} -> {last:.1f}"


def _quarters(children: list[list[int]]) -> str:
    grown = zip(*[[b - a for a, b in pairwise(child)] for child in children], strict=True)
    return " ".join(f"{statistics.median(quarter) / 1e3:.0f}" for quarter in grown)


def _life(tasks: int) -> list[int]:
    """Private bytes after the first tasks and after each quarter of all."""
    record = []
    asked = {_FIRST, *(tasks * quarter // 4 for quarter in range(1, 5))}
    for task in range(1, tasks + 1):
        workload.task(task)
        if task % _COLLECT_EVERY == 0:
            gc.collect()
        if task in asked:
            record.append(warmed_child.private_bytes())
    return record


def _measured(parent: str, children: int, tasks: int) -> list[Any]:
    workload.imports()
    workload.work()
    if parent == "warmup":
        frostfork.warmup(warmed_child.learned())
    living = []
    for _ in range(children):
        read, write = os.pipe()
        pid = frostfork.fork(freeze=parent != "plain")
        if pid == 0:
            os.close(read)
            os.write(write, json.dumps(_life(tasks)).encode())
            os._exit(0)
        os.close(write)
        living.append((pid, read))
    found = []
    for pid, read in living:
        with os.fdopen(read) as answer:
            text = answer.read()
        if os.waitpid(pid, 0)[1] != 0 or not text:
            raise BenchmarkError("a child of the long life failed")
        found.append(json.loads(text))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="One parent and its children; prints JSON.")
    parser.add_argument("--parent", choices=_PARENTS, required=True)
    parser.add_argument("--children", type=int, required=True)
    parser.add_argument("--tasks", type=int, required=True)
    options = parser.parse_args()
    print(json.dumps(_measured(options.parent, options.children, options.tasks)))


if __name__ == "__main__":
    main()
