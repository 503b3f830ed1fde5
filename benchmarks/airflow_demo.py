# SPDX-License-Identifier: Apache-2.0
"""The ratios of `frostfork demo` beside their goals: Airflow's DAG processor, stock and with frostfork.

The demo runs the two one after the other, so there are no pairs: a ratio is one of means over the timed rounds. Its
spread is that of the rounds at its widest, least of one side by most of the other.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from typing import Any

from dags.generate import HEAVY
from pairs import BenchmarkError, Figure, progress

NAME = "demo"
_TIMEOUT = 1800

# Name in the demo's JSON, what it is, its goal.
_WHOLE: tuple[tuple[str, str, float | None], ...] = (
    ("seconds_per_file", "seconds per file, all files", 0.5),
    ("round_seconds", "wall of a round", 0.5),
    ("cpu_seconds", "CPU seconds per child", None),  # beside the wall times: other programs disturb it less
    ("private_bytes", "private bytes per child", 1 / 3),
    ("page_faults", "page faults per child", 0.6),
)
# Name, kinds, what it is, its goal, unit and scale in the detail.
_KINDS: tuple[tuple[str, tuple[str, ...], str, float, str, float], ...] = (
    ("seconds_per_file", HEAVY, "seconds per file, heavy imports", 1 / 6, "ms", 1e3),
    ("seconds_per_file", ("plain",), "seconds per file, plain files", 1.0, "ms", 1e3),
    ("private_bytes", HEAVY, "private bytes per child, heavy imports", 1 / 7, "MB", 1e-6),
    ("page_faults", HEAVY, "page faults per child, heavy imports", 1 / 6, "", 1),
)
_PEAK_PROCESSES = 8
_PEAK_GOAL = 0.75


def missing() -> str:
    """What this Python lacks for it, as a sentence; empty if nothing."""
    absent = [name for name in ("airflow", "click", "rich") if importlib.util.find_spec(name) is None]
    if not absent:
        return ""
    return f"{NAME}: left out, for {', '.join(absent)} cannot be imported here (locks/demo.txt pins what it needs)."


def run(*, quick: bool) -> list[Figure]:
    rounds = 1 if quick else 4
    result = _demo(rounds, 2)
    found = [_whole(result, name, title, goal) for name, title, goal in _WHOLE]
    found += [_of_kinds(result, *each) for each in _KINDS]
    if not quick:
        result = _demo(1, _PEAK_PROCESSES)
        title = f"peak PSS, {_PEAK_PROCESSES} processes"
        found.append(_whole(result, "peak_pss_bytes", title, _PEAK_GOAL))
    return found


def _demo(rounds: int, processes: int) -> dict[str, Any]:
    progress(f"{NAME}: frostfork demo, {processes} processes (some minutes)")
    command = [sys.executable, "-c", "from frostfork.cli import main; main()"]
    command += ["demo", "--json", "--rounds", str(rounds), "--processes", str(processes)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            output, _ = process.communicate(timeout=_TIMEOUT)
        except subprocess.TimeoutExpired as error:
            raise BenchmarkError(f"frostfork demo did not finish: {error}") from error
        finally:
            # SIGTERM, on which it ends its own processes and clears up; nothing once it has ended.
            process.terminate()
    if process.returncode != 0:
        raise BenchmarkError(f"frostfork demo ended with status {process.returncode}")
    result: dict[str, Any] = json.loads(output)
    return result


def _whole(result: dict[str, Any], name: str, title: str, goal: float | None) -> Figure:
    ratio = result["ratio"][name]
    if ratio is None:
        raise BenchmarkError(f"frostfork demo knows no {name}")
    stock, ours = (result[variant]["spread"].get(name) for variant in ("stock", "frostfork"))
    least, most = (ours[0] / stock[1], ours[1] / stock[0]) if stock and ours else (ratio, ratio)
    detail = f"stock {_written(name, result['stock'][name])}, frostfork {_written(name, result['frostfork'][name])}"
    return Figure(NAME, title, ratio, least, most, least, most, result["rounds"], goal, detail=detail)


def _of_kinds(
    result: dict[str, Any],
    name: str,
    kinds: tuple[str, ...],
    title: str,
    goal: float,
    unit: str,
    scale: float,
) -> Figure:
    """Of the mean over the files of some kinds. A kind of which either side has no sample is left out."""
    sides = [result[variant]["kinds"] for variant in ("stock", "frostfork")]
    present = [kind for kind in kinds if all(side.get(kind, {}).get(name) for side in sides)]
    files = [sum(side[kind]["files"] for kind in present) for side in sides]
    if not all(files):
        raise BenchmarkError(f"frostfork demo has no {name} of the kinds {', '.join(kinds)}")
    means = [
        sum(side[kind][name] * side[kind]["files"] for kind in present) / count
        for side, count in zip(sides, files, strict=True)
    ]
    each = [sides[1][kind][name] / sides[0][kind][name] for kind in present]
    detail = (
        f"stock {means[0] * scale:,.0f} {unit}, frostfork {means[1] * scale:,.0f} {unit}; {files[0]} files"
    )
    if len(each) > 1:
        detail += "; by kind " + ", ".join(
            f"{kind} {one:.2f}" for kind, one in zip(present, each, strict=True)
        )
    ratio = means[1] / means[0]
    return Figure(
        NAME, title, ratio, ratio, ratio, min(each), max(each), result["rounds"], goal, detail=detail
    )


def _written(name: str, value: float) -> str:
    if name.endswith("_bytes"):
        return f"{value / 1e6:.0f} MB"
    return f"{value:,.0f}" if name == "page_faults" else f"{value:.3g} s"
