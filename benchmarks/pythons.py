# SPDX-License-Identifier: Apache-2.0
"""What a warmup gives on each Python: tools/warmup-table runs this with every one of them.

    python pythons.py measure          # in a Python that has frostfork: one record, as JSON
    python pythons.py table FILE ...   # of such records: a table in Markdown

The work needs the standard library alone (stdlib_work.py). Each figure comes from a parent and a child of their own.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import platform
import re
import statistics
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_PARENTS = ("plain", "freeze", "warmup")
_LARGE = 200 << 20  # enough for the rule of collapse
_ALONE = {"collapse": f"`collapse`, a parent of {_LARGE >> 20} MB", "merge": "`merge`, asked for"}
_ROUNDS = 7


def _parent(how: str) -> dict[str, Any]:
    """Private bytes of one working child, and what the warmup said."""
    import stdlib_work
    import warmed_child

    import frostfork

    steps: dict[str, Any] = {}
    if how == "warmup":
        report = frostfork.warmup(warmed_child.learned(stdlib_work.work))
        steps = {name: step._asdict() for name, step in report.steps.items()}
    elif how == "freeze":
        gc.freeze()

    def worked() -> int:
        stdlib_work.work()
        return warmed_child.private_bytes()

    return {"private": warmed_child.in_child(worked, freeze=how == "warmup"), "steps": steps}


def _alone(step: str) -> dict[str, Any]:
    """What a step says that the parents above do not take: collapse is for large ones, merge is off by default."""
    from pairs import small_objects

    import frostfork

    held = small_objects(_LARGE if step == "collapse" else 0)
    done = frostfork.warmup(steps=[step]).steps[step]._asdict()
    del held
    return done


def _measured(rounds: int) -> dict[str, Any]:
    from pairs import fresh

    found: dict[str, list[dict[str, Any]]] = {how: [] for how in _PARENTS}
    for _ in range(rounds):
        for how in _PARENTS:
            found[how].append(fresh(__file__, "parent", how))
    release = re.match(r"[\d.]+\d", platform.release())
    return {
        "python": platform.python_version(),
        "threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
        "kernel": release[0] if release else "unknown",
        "date": datetime.date.today().isoformat(),
        "private": {how: [run["private"] for run in found[how]] for how in _PARENTS},
        "steps": found["warmup"][-1]["steps"],
        "alone": {step: fresh(__file__, "alone", step) for step in _ALONE},
    }


def _table(records: list[dict[str, Any]]) -> str:
    """One column for each Python, oldest first; below, the reasons of steps that were not done."""
    records = sorted(records, key=lambda record: [int(part) for part in re.findall(r"\d+", record["python"])])
    reasons: list[str] = []
    cells: dict[str, Callable[[dict[str, Any]], str]] = {"": lambda record: str(record["python"])}
    for name in records[0]["steps"]:
        if name not in _ALONE:
            cells[f"`{name}`"] = lambda record, name=name: _said(record["steps"][name], reasons)
    for name, label in _ALONE.items():
        cells[label] = lambda record, name=name: _said(record["alone"][name], reasons)
    for how in _PARENTS:
        cells[f"private memory of a child, {how}"] = lambda record, how=how: _spread(record["private"][how])
    for other in ("plain", "freeze"):
        cells[f"warmup / {other}"] = lambda record, other=other: _ratio(record["private"], other)
    lines = [f"| {label} | {' | '.join(map(cell, records))} |" for label, cell in cells.items()]
    lines.insert(1, "|---" * (len(records) + 1) + "|")
    runs = sorted({len(record["private"]["plain"]) for record in records})
    dates, kernels = (sorted({record[what] for record in records}) for what in ("date", "kernel"))
    where = f"{', '.join(dates)}, Linux {', '.join(kernels)}, {platform.machine()}."
    lines += ["", *(f"{at}. {reason}" for at, reason in enumerate(reasons, 1)), ""]
    lines.append(f"Medians of {', '.join(map(str, runs))} runs each, with the least and the most. {where}")
    return "\n".join(lines)


def _said(step: dict[str, Any], reasons: list[str]) -> str:
    if step["status"] == "done":
        return f"{step['count']:,} {step['unit']}"
    if step["reason"] not in reasons:
        reasons.append(step["reason"])
    return f"{step['status']} ({reasons.index(step['reason']) + 1})"


def _spread(values: list[int]) -> str:
    middle, least, most = (value / 1e6 for value in (statistics.median(values), min(values), max(values)))
    return f"{middle:.2f} MB ({least:.2f} to {most:.2f})"


def _ratio(private: dict[str, list[int]], other: str) -> str:
    pairs = [ours / theirs for ours, theirs in zip(private["warmup"], private[other], strict=True)]
    return f"{statistics.median(pairs):.2f} ({min(pairs):.2f} to {max(pairs):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description="What a warmup gives on this Python.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("measure", help="one record, as JSON").add_argument(
        "--rounds", type=int, default=_ROUNDS
    )
    commands.add_parser("table", help="records as Markdown").add_argument("files", nargs="+", type=Path)
    commands.add_parser("parent", help="one parent and its child").add_argument("how", choices=_PARENTS)
    commands.add_parser("alone", help="one step by itself").add_argument("step", choices=_ALONE)
    options = parser.parse_args()
    if options.command == "measure":
        print(json.dumps(_measured(options.rounds)))
    elif options.command == "parent":
        print(json.dumps(_parent(options.how)))
    elif options.command == "alone":
        print(json.dumps(_alone(options.step)))
    else:
        sys.stdout.write(_table([json.loads(file.read_text()) for file in options.files]) + "\n")


if __name__ == "__main__":
    main()
