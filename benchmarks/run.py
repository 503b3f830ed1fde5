# SPDX-License-Identifier: Apache-2.0
"""The benchmark suite: ratios measured side by side in one run, beside their goals.

A missed goal is said in the table and is no error. The exit status is 1 if a benchmark could not run.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import airflow_demo
import analyze
import child_start
import code_learning
import collapse
import fork_cost
import import_time
import ledger
import long_life
import observed_import
import page_counts
import parent_leak
import pool_memory
import pool_speed
import pool_start
import warmed_child
import warmed_rounds
from pairs import BenchmarkError, Figure, environment, progress

if TYPE_CHECKING:
    from collections.abc import Sequence

_BENCHMARKS = {
    module.NAME: module
    for module in (
        import_time,
        fork_cost,
        collapse,
        page_counts,
        parent_leak,
        warmed_child,
        long_life,
        warmed_rounds,
        child_start,
        code_learning,
        observed_import,
        ledger,
        pool_speed,
        pool_start,
        pool_memory,
        analyze,
        airflow_demo,
    )
}


def main() -> int:
    options = _options()
    machine = environment()
    print(_heading(machine), flush=True)
    found: list[Figure] = []
    seconds: dict[str, float] = {}
    notes: list[str] = []
    failed: dict[str, str] = {}
    for name in options.only or _BENCHMARKS:
        if lacking := getattr(_BENCHMARKS[name], "missing", str)():
            notes.append(lacking)
            continue
        start = time.perf_counter()
        try:
            figures = _BENCHMARKS[name].run(quick=options.quick)
        except (BenchmarkError, OSError) as error:
            failed[name] = str(error)
            progress(f"{name} failed: {error}")
            continue
        seconds[name] = round(time.perf_counter() - start, 1)
        found += figures
    print(_table(found))
    for line in (*notes, *(f"{name} FAILED to run: {reason}" for name, reason in failed.items())):
        print(line)
    print(_sum(found, failed))
    if options.json:
        result = {
            "environment": machine,
            "quick": options.quick,
            "seconds": seconds,
            "figures": [each.as_json() for each in found],
            "notes": notes,
            "failed": failed,
        }
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=_BENCHMARKS, metavar="NAME", help=", ".join(_BENCHMARKS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE as well")
    parser.add_argument("--quick", action="store_true", help="few samples: does it run, rather than how fast")
    return parser.parse_args()


def _heading(machine: dict[str, object]) -> str:
    return (
        f"Python {machine['python']}, frostfork {machine['frostfork']}, Linux {machine['kernel']} "
        f"{machine['machine']}, {machine['cores']} cores, {machine['processor']}, "
        f"huge pages: {machine['huge_pages']}, load {machine['load_at_start']}"
    )


def _table(found: Sequence[Figure]) -> str:
    """Each figure a line, and its detail in the line below."""
    heading = ("", "median", "quartiles", "least..most", "n", "goal", "")
    rows = [heading]
    for each in found:
        goal = "" if each.goal is None else f"<= {_value(each.goal, each.unit)}"
        ends = f"{_value(each.least, each.unit)}..{_value(each.most, each.unit)}"
        middle = f"{_value(each.lower_quartile, each.unit)}..{_value(each.upper_quartile, each.unit)}"
        name = f"{each.benchmark}: {each.name}"
        rows.append(
            (name, _value(each.median, each.unit), middle, ends, str(each.samples), goal, each.verdict)
        )
    widths = [max(len(row[at]) for row in rows) for at in range(len(heading))]
    lines = []
    for row, detail in zip(rows, ("", *(each.detail for each in found)), strict=True):
        first, *others = (
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join((first, *others)).rstrip())
        if detail:
            lines.append(f"    {detail}")
    return "\n".join(lines)


def _value(value: float, unit: str) -> str:
    return f"{value:.3f}" if unit == "x" else f"{value:.1f} {unit}"


def _sum(found: Sequence[Figure], failed: dict[str, str]) -> str:
    missed = [f"{each.benchmark}: {each.name}" for each in found if each.verdict == "MISSED"]
    judged = sum(each.goal is not None for each in found)
    parts = [f"{judged - len(missed)} of {judged} goals reached"]
    if missed:
        parts.append("missed: " + "; ".join(missed))
    if failed:
        parts.append("could not run: " + ", ".join(failed))
    return ". ".join(parts) + "."


if __name__ == "__main__":
    sys.exit(main())
