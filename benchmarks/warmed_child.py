# SPDX-License-Identifier: Apache-2.0
"""Private bytes of a child that works (see workload.py): after a plain fork, after gc.freeze alone, after warmup().

The warmed parent has forked two children before, which showed what they import and which code they run. In the second
pair of rows the parent also did the work once itself, as a parent that serves the same requests has.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
from typing import TYPE_CHECKING, Any

import workload
from pairs import BenchmarkError, Figure, figure, fresh, progress

import frostfork

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "warmed_child"
_OF_FREEZE, _OF_PLAIN = 1 / 5, 1 / 9
_PARENTS = ("plain", "freeze", "warmup", "freeze, worked", "warmup, worked")


def missing() -> str:
    return workload.missing(NAME)


def run(*, quick: bool) -> list[Figure]:
    rounds = 1 if quick else 5
    found: dict[str, list[dict[str, Any]]] = {parent: [] for parent in _PARENTS}
    for at in range(rounds):
        progress(f"{NAME}: a child of each of {len(_PARENTS)} parents, {at + 1} of {rounds}")
        for parent in _PARENTS:
            found[parent].append(fresh(__file__, "--parent", parent))
    steps = found["warmup, worked"][-1]["steps"]
    sides = ", ".join(f"{parent} {_megabytes(found[parent])}" for parent in _PARENTS)
    return [
        _figure(found, "warmup, worked", "freeze", _OF_FREEZE, sides),
        _figure(found, "warmup, worked", "plain", _OF_PLAIN, "steps: " + "; ".join(steps)),
        figure(
            NAME,
            "unshared pages / the floor that blame gives, warmup, worked",
            [run["unshared"] / run["floor"] for run in found["warmup, worked"]],
            None,
            detail="pages that the child copied, to pages that the bytes it changed would fill side by side",
        ),
        _figure(found, "warmup", "freeze", None, "the parent never did the work itself"),
        _figure(found, "warmup", "plain", None, "the same"),
    ]


def _figure(
    found: dict[str, list[dict[str, Any]]], ours: str, other: str, goal: float | None, detail: str
) -> Figure:
    values = [a["private"] / b["private"] for a, b in zip(found[ours], found[other], strict=True)]
    return figure(NAME, f"private bytes, {ours} / {other}", values, goal, detail=detail)


def _megabytes(runs: list[dict[str, Any]]) -> str:
    values = sorted(run["private"] / 1e6 for run in runs)
    return f"{values[len(values) // 2]:.1f} MB"


def private_bytes(pid: int | str = "self") -> int:
    with open(f"/proc/{pid}/smaps_rollup") as rollup:
        return sum(int(size) * 1024 for size in re.findall(r"^Private_\w+: +(\d+) kB", rollup.read(), re.M))


def in_child(body: Callable[[], Any], *, freeze: bool = False) -> Any:
    read, write = os.pipe()
    pid = frostfork.fork(freeze=freeze)
    if pid == 0:
        os.write(write, json.dumps(body()).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        result = answer.read()
    if os.waitpid(pid, 0)[1] != 0 or not result:
        raise BenchmarkError("a child of the workload failed")
    return json.loads(result)


def learned(work: Callable[[], None] = workload.work) -> frostfork.Ledger:
    """What two children used that did this work."""
    ledger = frostfork.Ledger()
    for code in (False, True):
        journal = frostfork.Journal()

        def observed(journal: frostfork.Journal = journal, code: bool = code) -> None:
            gc.freeze()
            with frostfork.observe(journal, pages=False, code=code):
                work()

        in_child(observed)
        ledger.record(frostfork.Observation.from_journal(journal))
        journal.close()
        frostfork.warmup(ledger, steps=["preload"])
    return ledger


def _measured(parent: str) -> dict[str, Any]:
    workload.imports()
    if parent.endswith("worked"):
        workload.work()
    steps: list[str] = []
    if parent.startswith("warmup"):
        report = frostfork.warmup(learned())
        steps = [f"{name} {_said(step)}" for name, step in report.steps.items()]
    elif parent.startswith("freeze"):
        gc.freeze()

    def worked() -> int:
        workload.work()
        return private_bytes()

    def judged() -> tuple[int, int]:
        with frostfork.blame() as report:
            workload.work()
        return report.unshared, report.floor

    warmed = parent.startswith("warmup")
    private = in_child(worked, freeze=warmed)
    unshared, floor = in_child(judged, freeze=warmed) if warmed else (None, None)
    return {"private": private, "steps": steps, "unshared": unshared, "floor": floor}


def _said(step: frostfork.StepReport) -> str:
    if step.status != "done":
        return f"{step.status} ({step.reason})"
    return f"{step.count:,} {step.unit} in {step.seconds * 1000:.0f} ms, {step.bytes_held / 1e6:.1f} MB held"


def main() -> None:
    parser = argparse.ArgumentParser(description="One parent and its child; prints JSON.")
    parser.add_argument("--parent", choices=_PARENTS, required=True)
    print(json.dumps(_measured(parser.parse_args().parent)))


if __name__ == "__main__":
    main()
