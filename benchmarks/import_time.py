# SPDX-License-Identifier: Apache-2.0
"""`import frostfork` in a fresh interpreter against an empty one."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from pairs import Figure, figure, in_turn, medians, progress

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "import_time"
GOAL = 25.0  # milliseconds


def run(*, quick: bool) -> list[Figure]:
    progress(f"{NAME}: fresh interpreters")
    sides = in_turn(_interpreter("pass"), _interpreter("import frostfork"), 10 if quick else 60)
    empty, importing = (statistics.median(values) for values in zip(*sides, strict=True))
    differences = [(second - first) / 1e6 for first, second in sides]
    detail = f"{medians(sides, ('empty', 'importing'), 1e-6, 'ms')}; {(importing - empty) / 1e6:.1f} ms between these"
    return [figure(NAME, "import frostfork", differences, GOAL, unit="ms", detail=detail)]


def _interpreter(code: str) -> Callable[[], int]:
    command = [sys.executable, "-I", "-c", code]

    def measure() -> int:
        start = time.perf_counter_ns()
        subprocess.run(command, check=True)
        return time.perf_counter_ns() - start

    return measure
