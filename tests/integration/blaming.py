# SPDX-License-Identifier: Apache-2.0
"""Children under blame."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import frostfork
from frostfork import PAGE_SIZE, BlameReport
from tests.integration.forking import run_child


def blamed(action: Callable[[], object], fork: Callable[[], int] = frostfork.fork) -> BlameReport:
    """The report of a child that does this and nothing else."""

    def judge() -> str:
        with frostfork.blame() as report:
            action()
        return report.to_json().decode()

    return BlameReport.from_json(run_child(judge, fork))


def pages_of(objects: Iterable[object]) -> int:
    return len({id(item) // PAGE_SIZE for item in objects})


def owned(report: BlameReport, cause: str, name: str) -> tuple[int, int]:
    """(pages, bytes) of one owner."""
    return next(((o.pages, o.bytes) for o in report.owners if (o.cause, o.name) == (cause, name)), (0, 0))
