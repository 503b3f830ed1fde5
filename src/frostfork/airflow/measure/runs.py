# SPDX-License-Identifier: Apache-2.0
"""Runs one variant of the DAG processor in an AIRFLOW_HOME of its own, and gathers what it leaves behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frostfork.airflow.measure.background import Log, start, stop
from frostfork.airflow.measure.phases import (
    MEMORY_ROUNDS,
    MOST_LEARNING_ROUNDS,
    learning_rounds,
    round_of,
    sampling_done,
    sampling_due,
)
from frostfork.airflow.measure.processes import busy_seconds
from frostfork.airflow.measure.sampler import Sampler
from frostfork.airflow.measure.summary import Measured, Parse, per_child
from frostfork.errors import FrostforkError

if TYPE_CHECKING:
    from collections.abc import Callable

VARIANTS = ("stock", "frostfork")

# Longer than any time limit that Airflow has for one file, so silence means that nothing goes on any more.
_SILENCE_SECONDS = 300.0
_LOOK_SECONDS = 0.1
_SAMPLE_SECONDS = 0.01
_LEAST_PAUSE_SECONDS = 0.002


class NothingParsedError(FrostforkError):
    """Airflow found no DAG file in the folder."""


@dataclass(frozen=True)
class Setting:
    """What both variants have in common. zygote: whether frostfork forks from one; None for its default."""

    dags: Path
    rounds: int
    processes: int
    homes: Path
    zygote: bool | None = None

    def all_rounds(self, learning: int) -> int:
        """Rounds of learning, timed ones and those with the sampler."""
        return learning + self.rounds + MEMORY_ROUNDS

    def most_runs(self) -> int:
        """Return how often Airflow may parse a file, were it not stopped before.

        It is stopped, because a file that has had its runs is left out: the last rounds would be of the few
        files that sat out others. This bound is for a processor that nobody is left to stop.
        """
        return 2 * self.all_rounds(MOST_LEARNING_ROUNDS)

    def environment(self, variant: str) -> dict[str, str]:
        """Return this process's environment with Airflow's own settings replaced."""
        dropped = ("AIRFLOW_HOME", "AIRFLOW_CONFIG", "PYTHONDONTWRITEBYTECODE")
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("AIRFLOW__") and name not in dropped
        }
        if sys.dont_write_bytecode:
            # Without bytecode each child would compile what it imports, time and again, and the gain from
            # not importing would look several times as large as it is. Here it is written, but elsewhere.
            kept["PYTHONPYCACHEPREFIX"] = str(self.homes / "bytecode")
        home = self.homes / variant
        bundle = {
            "name": "dags-folder",
            "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
            "kwargs": {"path": str(self.dags)},
        }
        return {
            **kept,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([bundle]),
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "0",
            "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": str(self.processes),
            "AIRFLOW__FROSTFORK__ENABLED": str(variant == "frostfork"),
            **({} if self.zygote is None else {"AIRFLOW__FROSTFORK__ZYGOTE": str(self.zygote)}),
        }


def migrate(setting: Setting) -> None:
    """Make the database of the first variant and copy it for the others: it takes as long as a run."""
    first, *others = VARIANTS
    for variant in VARIANTS:
        (setting.homes / variant).mkdir(parents=True)
    with Log("migrate") as log:
        process = start(["-m", "airflow", "db", "migrate"], setting.environment(first), log)
        try:
            process.wait(timeout=_SILENCE_SECONDS)
        except subprocess.TimeoutExpired:
            raise log.failure("airflow db migrate did not end") from None
        finally:
            stop(process)
        if process.returncode:
            raise log.failure(f"airflow db migrate ended with {process.returncode}")
    for variant in others:
        shutil.copy(setting.homes / first / "airflow.db", setting.homes / variant / "airflow.db")


def run(variant: str, setting: Setting, progress: Callable[[int, int, int | None], None]) -> Measured:
    """Run all rounds of one variant.

    `progress` is told how many parses are done, of how many files, and how many rounds of learning there are, once
    that is known.

    Raises RunError if the DAG processor fails, NothingParsedError if it has found nothing to do.
    """
    record = setting.homes / f"{variant}.jsonl"
    record.touch()
    module = ["-m", "frostfork.airflow.measure.run", variant, str(record), "--"]
    flags = ["--num-runs", str(setting.most_runs())]
    with Log(variant) as log:
        process = start([*module, *flags], setting.environment(variant), log)
        try:
            settled_from = 0 if variant == "stock" else None  # it learns nothing
            measured, tail = _watch(
                process, record, setting, Measured(settled_from=settled_from), progress, log
            )
        finally:
            ended = process.poll()
            stop(process)
        if ended:
            raise log.failure(f"the {variant} DAG processor ended with {ended}")
    tail.read(measured)
    if not measured.parses:
        raise NothingParsedError(f"Airflow found no DAG file in {setting.dags}.")
    return measured


def _watch(
    process: subprocess.Popen[bytes],
    record: Path,
    setting: Setting,
    measured: Measured,
    progress: Callable[[int, int, int | None], None],
    log: Log,
) -> tuple[Measured, _Tail]:
    tail = _Tail(record)
    sampler = Sampler(process.pid)
    paths: list[str] = []
    heard = time.monotonic()
    rounds = 0
    while True:
        ended = process.poll() is not None
        parses = tail.read(measured)
        if parses:
            heard = time.monotonic()
            measured.parses += parses
            paths += [parse.path for parse in parses]
            learning = learning_rounds(len(set(paths)), measured.settled_from)
            progress(len(paths), len(set(paths)), None if measured.settled_from is None else learning)
        if ended or _is_done(measured, sampler):
            break
        if time.monotonic() - heard > _SILENCE_SECONDS:
            raise log.failure(f"no file was parsed for {_SILENCE_SECONDS:.0f} seconds")
        if measured.sampled_from is None and parses:
            if round_of(paths) > max(rounds, learning - 1):
                rounds = round_of(paths)
                if not measured.busy:
                    measured.busy.append((len(paths), busy_seconds()))
                sampler.sample_manager()
            if sampling_due(paths, setting.rounds, measured.settled_from):
                measured.sampled_from = len(paths)
                measured.busy.append((len(paths), busy_seconds()))
        if measured.sampled_from is None:
            time.sleep(_LOOK_SECONDS)
        else:
            began = time.monotonic()
            sampler.sample()
            # A sample takes its time itself, and a child that fails early lives for 40 ms.
            time.sleep(max(_LEAST_PAUSE_SECONDS, began + _SAMPLE_SECONDS - time.monotonic()))
    measured.parses = per_child(measured.parses)
    measured.children, measured.trees = sampler.children, sampler.trees
    measured.manager_rss, measured.notes = sampler.manager_rss, sorted(sampler.notes)
    return measured, tail


def _is_done(measured: Measured, sampler: Sampler) -> bool:
    if measured.sampled_from is None:
        return False
    after = measured.parses[measured.sampled_from :]
    sampled = {parse.path for parse in after if sampler.has_seen(parse.pid)}
    return sampling_done(len(after), len(sampled), len({parse.path for parse in measured.parses}))


class _Tail:
    """Reads what was appended to a record file since the last look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._ends: dict[int, float] = {}  # of children whose result the manager has not taken yet

    def read(self, measured: Measured) -> list[Parse]:
        with self._path.open("rb") as file:
            file.seek(self._read)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._read += len(whole) + len(newline)
        parses: list[Parse] = []
        for line in whole.splitlines():
            entry: dict[str, Any] = json.loads(line)
            if entry["event"] == "preload":
                measured.preloaded, measured.refused = entry["preloaded"], entry["refused"]
                measured.warmups = entry["warmups"]
                if not entry["settled"]:
                    measured.settled_from = None
                elif measured.settled_from is None:
                    measured.settled_from = len(measured.parses) + len(parses)
            elif entry["event"] == "child":
                self._ends[entry["pid"]] = entry["end"]
            else:
                parses.append(_parse(entry, self._ends.pop(entry["pid"], None)))
        return parses


def _parse(entry: dict[str, Any], child_end: float | None) -> Parse:
    return Parse(
        path=entry["path"],
        pid=entry["pid"],
        start=entry["start"],
        end=entry["end"],
        seconds=entry["seconds"],
        cpu=entry["children_cpu"],
        faults=entry["children_faults"],
        manager_cpu=entry["own_cpu"],
        dags=entry["dags"],
        child_seconds=None if child_end is None else child_end - entry["start"],
    )
