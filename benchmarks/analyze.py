# SPDX-License-Identifier: Apache-2.0
"""`frostfork analyze` of a folder of files that share imports, against importing each in a fresh interpreter.

And its estimate for the demo's corpus, against what `frostfork demo` measures over it: CPU seconds a file.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dags.generate import KINDS, generate
from pairs import BenchmarkError, Figure, figure, in_turn, medians, progress

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = "analyze"
GOAL = 1 / 3
ESTIMATE_GOAL = 0.2  # how far it may be off

_HEAVY = {
    "pandas": "import pandas as pd",
    "numpy": "import numpy as np",
    "pyarrow": "import pyarrow.parquet as pq",
    "sklearn": "from sklearn.linear_model import LinearRegression",
    "scipy": "from scipy import stats",
    "sqlalchemy": "import sqlalchemy as sa",
    "matplotlib": "import matplotlib.pyplot as plt",
}
_LIGHT = (
    "json",
    "csv",
    "datetime",
    "logging",
    "asyncio",
    "sqlite3",
    "decimal",
    "uuid",
    "email.message",
    "unittest",
)
_FRESH = 25  # of how many files one is run in a fresh interpreter too


def missing() -> str:
    """Why this benchmark is left out, if it is."""
    lacking = [name for name in ("click", "rich", *_HEAVY) if importlib.util.find_spec(name) is None]
    return f"{NAME} is left out: it needs {', '.join(lacking)} (locks/demo.txt)." if lacking else ""


def run(*, quick: bool) -> list[Figure]:
    """The files run fresh are every 25th, as many at a time as analyze runs, and their time is scaled up to all."""
    files, pairs = (100, 1) if quick else (500, 3)
    with tempfile.TemporaryDirectory(prefix="frostfork-bench-") as scratch:
        folder = Path(scratch) / "jobs"
        scripts = _generate(folder, files)
        _fresh(scripts[:4])  # bytecode and the kernel's caches are there for both
        progress(f"{NAME}: {files} files, {pairs} times")
        measured = in_turn(lambda: _fresh(scripts), lambda: _analyze(folder, files), pairs, warm_up=False)
    values = [ours / fresh for fresh, ours in measured]
    detail = medians(measured, ("fresh", "analyze"), 1, "s")
    found = [figure(NAME, f"{files} files that share imports", values, GOAL, detail=detail)]
    if importlib.util.find_spec("airflow") is not None:
        found.append(_estimate(quick))
    return found


def _estimate(quick: bool) -> Figure:
    """Before and after the demo: its CPU seconds are those of minutes, in which a machine's clock varies."""
    progress(f"{NAME}: the estimate, and frostfork demo (some minutes)")
    with tempfile.TemporaryDirectory(prefix="frostfork-bench-") as scratch:
        corpus = str(Path(scratch) / "dags")
        generate(corpus, files=len(KINDS) if quick else 40)
        estimates = [_command("analyze", corpus)["estimate"]["saving_per_file"]]
        demo = _command("demo", "--dags", corpus, "--rounds", "1" if quick else "2")
        estimates.append(_command("analyze", corpus)["estimate"]["saving_per_file"])
    measured = demo["stock"]["cpu_seconds"] - demo["frostfork"]["cpu_seconds"]
    shown = ", ".join(f"{each * 1e3:.0f}" for each in estimates)
    detail = f"measured {measured * 1e3:.0f} ms a file, estimated {shown}"
    values = [abs(each / measured - 1) for each in estimates]
    return figure(NAME, "the estimate, off by", values, ESTIMATE_GOAL, detail=detail)


def _generate(folder: Path, files: int) -> list[Path]:
    """Each with some light imports and none to four heavy ones, the same for the same number of files."""
    chosen = random.Random(7)
    folder.mkdir()
    paths = []
    for at in range(files):
        light = chosen.sample(_LIGHT, chosen.randint(1, 5))
        heavy = chosen.sample(list(_HEAVY), chosen.choices(range(5), (1, 2, 3, 2, 1))[0])
        lines = [*(f"import {name}" for name in light), *(_HEAVY[name] for name in heavy)]
        paths.append(folder / f"job_{at:03}.py")
        paths[-1].write_text("\n".join((*lines, "", "def main():", f"    return {at}", "")))
    return paths


def _fresh(scripts: Sequence[Path]) -> float:
    every = scripts[::_FRESH] if len(scripts) > _FRESH else scripts
    start = time.perf_counter()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(_import, every))
    return (time.perf_counter() - start) * len(scripts) / len(every)


def _import(script: Path) -> None:
    subprocess.run([sys.executable, str(script)], check=True, timeout=120)


def _analyze(folder: Path, files: int) -> float:
    """The whole command, its estimate included."""
    start = time.perf_counter()
    found = _command("analyze", "--no-airflow", str(folder))
    seconds = time.perf_counter() - start
    good = sum(source["outcome"] == "ok" for source in found["sources"])
    if good != files:
        raise BenchmarkError(f"only {good} of {files} files could be run")
    return seconds


def _command(*words: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "frostfork", *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    if done.returncode:
        raise BenchmarkError(done.stderr.strip())
    result: dict[str, Any] = json.loads(done.stdout)
    return result
