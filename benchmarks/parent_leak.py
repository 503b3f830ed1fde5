# SPDX-License-Identifier: Apache-2.0
"""Resident memory of a parent that makes cyclic garbage and forks on and on: frostfork.fork() against os.fork().

Beside them, with fewer forks, the recipe that leaks: gc.freeze() in the parent before each fork and gc.unfreeze() after
it. The three differ in nothing else; each run is a process of its own.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
from typing import TYPE_CHECKING

from pairs import Figure, figure, fresh, progress, resident

import frostfork

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "parent_leak"
GOAL = 1.1
_RECORDS = 10


def run(*, quick: bool) -> list[Figure]:
    forks, pairs = (1_000, 1) if quick else (10_000, 3)
    found: list[tuple[list[int], list[int]]] = []
    for at in range(pairs):
        progress(f"{NAME}: {forks:,} forks each of os.fork and frostfork.fork, {at + 1} of {pairs}")
        found.append((_fresh("os.fork", forks), _fresh("frostfork.fork", forks)))
    few = 500
    progress(f"{NAME}: {few} forks each of os.fork and freeze, fork, unfreeze")
    plain, leaking = _fresh("os.fork", few), _fresh("unfreeze", few)
    series = "; ".join(
        f"{how} {_megabytes(run)}" for how, run in zip(("os.fork", "frostfork.fork"), found[-1], strict=True)
    )
    return [
        figure(
            NAME,
            f"resident after {forks:,} forks",
            [ours[-1] / stock[-1] for stock, ours in found],
            GOAL,
            detail=f"MB after each {forks // _RECORDS:,} of the last run: {series}",
        ),
        figure(
            NAME,
            f"freeze, fork, unfreeze: after {few} forks",
            [leaking[-1] / plain[-1]],
            None,
            detail=f"MB after each {few // _RECORDS}: os.fork {_megabytes(plain)}; unfreeze {_megabytes(leaking)}",
        ),
    ]


def _fresh(how: str, forks: int) -> list[int]:
    result: list[int] = fresh(__file__, "--how", how, "--forks", forks)
    return result


def _megabytes(record: list[int]) -> str:
    return " ".join(f"{size / 1e6:.0f}" for size in record)


def _unfreezing_fork() -> int:
    gc.freeze()
    pid = os.fork()
    if pid:
        gc.unfreeze()
    return pid


_HOW: dict[str, Callable[[], int]] = {
    "os.fork": os.fork,
    "frostfork.fork": frostfork.fork,
    "unfreeze": _unfreezing_fork,
}


def _garbage() -> list[list[object]]:
    """About half a megabyte of cycles, which die a fork later: old enough by then for the older generations."""
    made = []
    for _ in range(1000):
        cell: list[object] = [bytes(300)]
        cell.append(cell)
        made.append(cell)
    return made


def _forks(fork: Callable[[], int], forks: int) -> list[int]:
    record = []
    held = _garbage()
    for at in range(1, forks + 1):
        pid = fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        held = _garbage()
        if at % (forks // _RECORDS) == 0:
            record.append(resident())
    del held
    return record


def main() -> None:
    parser = argparse.ArgumentParser(
        description="One run; prints resident bytes, ten times on the way, as JSON."
    )
    parser.add_argument("--how", choices=_HOW, required=True)
    parser.add_argument("--forks", type=int, required=True)
    options = parser.parse_args()
    print(json.dumps(_forks(_HOW[options.how], options.forks)))


if __name__ == "__main__":
    main()
