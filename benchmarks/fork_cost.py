# SPDX-License-Identifier: Apache-2.0
"""frostfork.fork() against os.fork(), as the parent sees it: until the fork returns, and until the child is reaped.

The child does nothing but exit. Each size of parent is a process of its own, so no parent carries another's memory.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import time
from typing import TYPE_CHECKING

from pairs import Figure, figure, fresh, in_turn, medians, progress, ratios, small_objects

import frostfork

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "fork_cost"
GOAL = 1.05
_PAIRS = {10: 1000, 100: 400, 1000: 100}  # by the parent's megabytes


def run(*, quick: bool) -> list[Figure]:
    found = []
    for megabytes, pairs in _PAIRS.items():
        progress(f"{NAME}: a parent of {megabytes} MB")
        measured = fresh(__file__, "--megabytes", megabytes, "--pairs", pairs // 10 if quick else pairs)
        for at, moment in enumerate(("until it returns", "until the child is reaped")):
            sides = [(first[at], second[at]) for first, second in measured]
            detail = medians(sides, ("os.fork", "frostfork.fork"), 1e-6, "ms")
            found.append(figure(NAME, f"{megabytes:,} MB, {moment}", ratios(sides), GOAL, detail=detail))
    return found


def _timed(fork: Callable[[], int]) -> Callable[[], tuple[int, int]]:
    clock = time.perf_counter_ns

    def measure() -> tuple[int, int]:
        start = clock()
        pid = fork()
        if pid == 0:
            os._exit(0)
        returned = clock() - start
        os.waitpid(pid, 0)
        return (returned, clock() - start)

    return measure


def main() -> None:
    parser = argparse.ArgumentParser(
        description="One parent of one size; prints nanoseconds pair by pair as JSON."
    )
    parser.add_argument("--megabytes", type=int, required=True)
    parser.add_argument("--pairs", type=int, required=True)
    options = parser.parse_args()
    # A collection that falls into one side would be counted as that side's fork.
    gc.disable()
    held = small_objects(options.megabytes << 20)
    print(json.dumps(in_turn(_timed(os.fork), _timed(frostfork.fork), options.pairs)))
    del held


if __name__ == "__main__":
    main()
