# SPDX-License-Identifier: Apache-2.0
"""What a child of Airflow's DAG processor copies, and how long it works, before it opens the DAG file.

Stock and frostfork run in turn, each time in a fresh process with an AIRFLOW_HOME of its own, over the same small
corpus. Only children after the rounds of learning count. Every other child tells its time and page faults, the rest
their pages: to count pages takes time. The baseline is the parent's, taken right before the fork, so that it costs
the child nothing and stock Airflow is left as it is.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from dags.generate import KINDS, generate
from pairs import PAGE_SIZE, BenchmarkError, Figure, figure, in_turn, progress

import frostfork

NAME = "child_start"
_BYTES, _SECONDS = 1 / 3, 1 / 2
_LEARNING_ROUNDS = 4  # by then the parent knows what the manager itself runs, too
_PROCESSES = 2
_TIMEOUT = 600

# Name in the record, what it is, its goal, unit and scale in the detail.
_FIGURES: tuple[tuple[str, str, float | None, str, float], ...] = (
    ("bytes", "bytes copied and new", _BYTES, "MB", 1e-6),
    ("wall", "seconds, waits for the manager included", _SECONDS, "ms", 1e3),
    ("cpu", "CPU seconds", _SECONDS, "ms", 1e3),
    ("faults", "page faults", None, "", 1),
)

Record = dict[str, list[float]]


def missing() -> str:
    wanted = ("airflow", "matplotlib", "pandas", "pyarrow", "scipy", "sklearn")
    absent = [name for name in wanted if importlib.util.find_spec(name) is None]
    if not absent:
        return ""
    return f"{NAME}: left out, for {', '.join(absent)} cannot be imported here (locks/demo.txt pins what it needs)."


def run(*, quick: bool) -> list[Figure]:
    pairs, rounds = (1, 2) if quick else (3, 6)
    with tempfile.TemporaryDirectory(prefix="frostfork-bench-") as scratch:
        corpus = Path(scratch) / "dags"
        generate(corpus, files=len(KINDS))
        runs = _Runs(corpus, Path(scratch), rounds)
        measured = in_turn(
            lambda: runs.measure("stock"), lambda: runs.measure("frostfork"), pairs, warm_up=False
        )
    return [_figure(measured, *each) for each in _FIGURES]


def _figure(
    measured: list[tuple[Record, Record]], name: str, title: str, goal: float | None, unit: str, scale: float
) -> Figure:
    """The ratios are those of the runs' medians; the detail is of all children."""
    ratios = [statistics.median(b[name]) / statistics.median(a[name]) for a, b in measured]
    sides = []
    for side, records in zip(("stock", "frostfork"), zip(*measured, strict=True), strict=True):
        values = [value * scale for record in records for value in record[name]]
        lower, middle, upper = statistics.quantiles(values, n=4, method="inclusive")
        sides.append(f"{side} {middle:,.3g} {unit} ({lower:,.3g}..{upper:,.3g}, {len(values)} children)")
    if name == "bytes":
        kinds = {known for sides_ in measured for record in sides_ for known in record["frames"]}
        sides.append("copied by frame numbers" if kinds == {1.0} else "unshared, for frames cannot be read")
    return figure(NAME, title, ratios, goal, detail=", ".join(sides))


class _Runs:
    """Runs of the DAG processor, each with a home of its own and a copy of one metadata database."""

    def __init__(self, corpus: Path, scratch: Path, rounds: int) -> None:
        self._corpus, self._scratch, self._rounds = corpus, scratch, rounds
        self._count = 0
        self._database: Path | None = None

    def measure(self, variant: str) -> Record:
        from frostfork.airflow.measure import background, runs

        all_rounds = _LEARNING_ROUNDS + self._rounds
        homes = self._scratch / f"run-{self._count}"
        setting = runs.Setting(self._corpus, self._rounds, _PROCESSES, homes, zygote=False)
        if self._database is None:
            progress(f"{NAME}: making a metadata database")
            runs.migrate(setting)
            self._database = shutil.copy(homes / variant / "airflow.db", self._scratch / "airflow.db")
        else:
            (homes / variant).mkdir(parents=True)
            shutil.copy(self._database, homes / variant / "airflow.db")
        self._count += 1
        progress(f"{NAME}: {variant}, {all_rounds} rounds of {len(KINDS)} files")
        record = homes / "record.jsonl"
        record.touch()
        with background.Log(variant) as log:
            arguments = [__file__, variant, str(record), "--num-runs", str(all_rounds)]
            process = background.start(arguments, setting.environment(variant), log)
            try:
                process.wait(timeout=_TIMEOUT)
            except subprocess.TimeoutExpired:
                raise BenchmarkError(str(log.failure(f"the {variant} DAG processor did not end"))) from None
            finally:
                background.stop(process)
            if process.returncode:
                failure = log.failure(f"the {variant} DAG processor ended with {process.returncode}")
                raise BenchmarkError(str(failure))
        return _read(record)


def _read(record: Path) -> Record:
    """All values by name, of the children after the learning."""
    found: Record = {name: [] for name in ("bytes", "frames", "wall", "cpu", "faults")}
    for line in record.read_text().splitlines():
        entry = json.loads(line)
        if entry.pop("fork") > _LEARNING_ROUNDS * len(KINDS):
            for name, value in entry.items():
                found[name].append(value)
    if not found["wall"] or not found["bytes"]:
        raise BenchmarkError("no child of the DAG processor told what it did")
    return found


class _Watch:
    """In the DAG processor: counts its forks; in its child: says at the call of the parser what was up to there."""

    def __init__(self, record: str) -> None:
        self._record = record
        self._forks = 0
        self._baseline: frostfork.Baseline | None = None
        self._returned = 0.0
        # Before anything else registers a hook: the last to run before the fork, the first in the child.
        os.register_at_fork(before=self._before, after_in_child=self._after)

    def _before(self) -> None:
        self._forks += 1
        # A corpus of an odd number of files: each is in the one half as often as in the other.
        self._baseline = frostfork.Baseline.take() if self._forks % 2 else None

    def _after(self) -> None:
        self._returned = time.perf_counter()

    def note(self) -> None:
        wall, cpu = time.perf_counter() - self._returned, time.process_time()
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        entry: dict[str, float] = {"fork": self._forks}
        if self._baseline is None:
            entry |= {"wall": wall, "cpu": cpu, "faults": faults}
        else:
            report = self._baseline.compare()
            written = report.unshared if report.copied is None else report.copied
            entry |= {"bytes": (written + report.new) * PAGE_SIZE, "frames": float(report.copied is not None)}
        descriptor = os.open(self._record, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        os.write(descriptor, json.dumps(entry).encode() + b"\n")
        os.close(descriptor)


def main() -> None:
    """Airflow's DAG processor, watched: VARIANT RECORD and Airflow's own flags."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("variant", choices=("stock", "frostfork"))
    parser.add_argument("record")
    options, flags = parser.parse_known_args()
    watch = _Watch(options.record)

    from airflow.dag_processing import processor
    from airflow.dag_processing.manager import DagFileProcessorManager

    from frostfork.airflow.command import run_dag_processor

    parse = processor._parse_file

    def watched(*arguments: Any) -> Any:
        watch.note()
        return parse(*arguments)

    processor._parse_file = watched
    manager = DagFileProcessorManager
    if options.variant == "frostfork":
        from frostfork.airflow.manager import SharedParentManager

        manager = SharedParentManager
    run_dag_processor(flags, manager)


if __name__ == "__main__":
    main()
