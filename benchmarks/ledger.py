# SPDX-License-Identifier: Apache-2.0
"""The ledger of a large DAG folder: what one more observation costs, in milliseconds, and what all of them hold.

10,000 modules and 500 files. Each child imports about 100 modules, most of them popular, as one file's children do
again and again. Names are new strings each time, as they come out of a journal.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import tempfile
import time
from typing import TYPE_CHECKING, Any

from pairs import Figure, figure, fresh, progress, resident

import frostfork

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "ledger"
_MODULES = 10_000
_FILES = 500
_GOAL_MS = 1.0
_GOAL_MB = 20.0


def run(*, quick: bool) -> list[Figure]:
    observations = 5_000 if quick else 100_000
    progress(f"{NAME}: {observations:,} observations")
    measured = fresh(__file__, "--observations", observations)
    what = f"{observations:,} observations of {measured['modules']:,} modules in {measured['files']} files"
    held = f"{measured['kb'] / measured['modules']:.2f} KB a module, {measured['file_bytes'] / 1e6:.1f} MB as a file"
    return [
        figure(NAME, "one observation", measured["ms"], _GOAL_MS, unit="ms", detail=what),
        figure(NAME, "memory of all", [measured["kb"] / 1024], _GOAL_MB, unit="MB", detail=held),
        figure(NAME, "one addition to the file", measured["add_ms"], None, unit="ms"),
    ]


def _imports(rng: random.Random) -> list[list[int]]:
    """By file: which modules its children import. Every module has a file, and popular ones have many."""
    chosen = [set(range(file, _MODULES, _FILES)) for file in range(_FILES)]
    for modules in chosen:
        modules.update(min(int(rng.paretovariate(0.6) * 10), _MODULES - 1) for _ in range(100))
    return [sorted(modules) for modules in chosen]


def _observations(number: int, rng: random.Random) -> Iterator[tuple[frostfork.Observation, str]]:
    imports = _imports(rng)
    for at in range(number):
        file = at % _FILES
        modules = []
        importer = None
        for order, module in enumerate(imports[file]):
            name = f"package{module % 300:03}.part{module % 7}.module{module:05}"
            origin = f"/opt/venv/lib/python3.13/site-packages/{name.replace('.', '/')}.py"
            seconds = rng.random() / 100
            modules.append(
                frostfork.ModuleImport(
                    name, origin, float(order), seconds, seconds, None, module * 100, module * 200, importer
                )
            )
            importer = name if rng.random() < 0.3 else importer
        yield (
            frostfork.Observation(modules, complete=True, wall_seconds=1.0),
            f"/opt/airflow/dags/team{file % 20}/dag_{file:03}.py",
        )


def _measured(number: int) -> dict[str, Any]:
    rng = random.Random(4)
    for _ in _observations(_FILES, random.Random(4)):  # the maker's own memory
        pass
    gc.collect()
    before = resident()
    ledger = frostfork.Ledger()
    took = []
    for observation, source in _observations(number, rng):
        start = time.perf_counter_ns()
        ledger.record(observation, source)
        took.append((time.perf_counter_ns() - start) / 1e6)
    gc.collect()
    kb = (resident() - before - took.__sizeof__() - 24 * len(took)) / 1024
    adds = []
    with tempfile.TemporaryDirectory(prefix="frostfork-bench-") as folder:
        file = frostfork.LedgerFile(f"{folder}/ledger")
        file.add(ledger)
        for observation, source in _observations(10, rng):
            new = frostfork.Ledger()
            new.record(observation, source)
            start = time.perf_counter_ns()
            file.add(new)
            adds.append((time.perf_counter_ns() - start) / 1e6)
        with open(file.path, "rb") as written:
            size = len(written.read())
    return {
        "ms": took,
        "kb": kb,
        "modules": len(ledger),
        "files": len(ledger.sources),
        "add_ms": adds,
        "file_bytes": size,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="One ledger; prints milliseconds, kilobytes as JSON.")
    parser.add_argument("--observations", type=int, required=True)
    print(json.dumps(_measured(parser.parse_args().observations)))


if __name__ == "__main__":
    main()
