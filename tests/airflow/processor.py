# SPDX-License-Identifier: Apache-2.0
"""DAG processors as subprocesses, stock and ours, in homes of their own; and what they leave in the database.

The homes are without the probe of conftest.py, which reports every fork to a socket that someone must read.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

_BIN = Path(sys.executable).parent
COMMANDS = {
    "stock": (str(_BIN / "airflow"), "dag-processor"),
    "frostfork": (str(_BIN / "frostfork"), "airflow", "dag-processor"),
}

# What is compared: a command, and settings that are its own.
VARIANTS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "stock": (COMMANDS["stock"], {}),
    "frostfork": (COMMANDS["frostfork"], {"frostfork__zygote": "True"}),
    "no zygote": (COMMANDS["frostfork"], {"frostfork__zygote": "False"}),
}

# Ours, with its report of what the parent imported written to the file that REPORT names.
_REPORTING = """
import json, os, sys
from pathlib import Path
from frostfork.airflow.command import run_dag_processor
from frostfork.airflow.manager import SharedParentManager

class Reporting(SharedParentManager):
    def after_run(self):
        super().after_run()
        report = self.report()
        facts = {"pid": os.getpid()}
        if report is not None:
            facts.update(parent=report.pid, preloaded=list(report.preloaded), refused=report.refused)
        Path(os.environ["REPORT"]).write_text(json.dumps(facts))

run_dag_processor(sys.argv[1:], Reporting)
"""
REPORTING = (sys.executable, "-c", _REPORTING)


@dataclass(frozen=True)
class Home:
    """An AIRFLOW_HOME with a database as after the migration."""

    path: Path

    @classmethod
    def make(cls, migrated: Path, path: Path) -> Home:
        path.mkdir()
        shutil.copy(migrated / "airflow.db.migrated", path / "airflow.db")
        return cls(path)

    def environment(self, dags: Path, *, enabled: bool = True, **settings: str) -> dict[str, str]:
        """Settings are written section__option=value; names in capitals are passed as they are."""
        bare = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AIRFLOW", "PYTHONPATH"))
        }
        given = {(name if name.isupper() else f"AIRFLOW__{name.upper()}"): v for name, v in settings.items()}
        return {
            **bare,
            "AIRFLOW_HOME": str(self.path),
            "HOME": str(self.path),
            "COLUMNS": "100",  # argparse folds its help to it
            "PATH": os.pathsep.join((str(_BIN), os.environ["PATH"])),
            "REPORT": str(self.path / "report.json"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "0",
            "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "2",
            "AIRFLOW__FROSTFORK__ENABLED": str(enabled),
            **given,
        }

    def report(self) -> dict[str, Any]:
        """What a run of REPORTING wrote at its end."""
        found: dict[str, Any] = json.loads((self.path / "report.json").read_text())
        return found

    def rows(self, query: str) -> list[dict[str, Any]]:
        """Rows of a query on the metadata database."""
        with contextlib.closing(sqlite3.connect(f"file:{self.path}/airflow.db?mode=ro", uri=True)) as base:
            base.row_factory = sqlite3.Row
            return [dict(row) for row in base.execute(query)]

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """All tables with all rows."""
        names = [row["name"] for row in self.rows("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: self.rows(f'SELECT * FROM "{name}"') for name in sorted(names)}


class Processor:
    """A process with all that it forks: ends with the `with` block, by INT and then KILL if it must."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        home = Path(environment["AIRFLOW_HOME"])
        number = len(list(home.glob("*.out")))
        self._out, self._err = home / f"{number}.out", home / f"{number}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                command, env=dict(environment), cwd=home, stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )
        self._family: list[psutil.Process] = []

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def out(self) -> str:
        return self._out.read_text(errors="replace")

    @property
    def err(self) -> str:
        return self._err.read_text(errors="replace")

    def look(self) -> list[psutil.Process]:
        """What it has forked by now; remembered, since nobody can tell after its end."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._family = psutil.Process(self.pid).children(recursive=True)
        return self._family

    def signal(self, number: int) -> None:
        self.look()
        self._process.send_signal(number)

    def wait(self, seconds: float = 280) -> int:
        """Its exit code. AssertionError, with its output, if it does not end in time."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"did not end in {seconds} s:\n{self.out[-3000:]}\n{self.err[-3000:]}"
            ) from None

    def left_over(self, seconds: float = 10) -> list[psutil.Process]:
        """Of the processes seen by look() or signal(), those that outlive it."""
        _, alive = psutil.wait_procs(self._family, timeout=seconds)
        return list(alive)

    def __enter__(self) -> Processor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self.signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(20)
        for member in self._family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(20)


def run_together(runs: Mapping[str, tuple[Sequence[str], Mapping[str, str]]]) -> dict[str, Processor]:
    """Run command lines at the same time and wait for the end of all; they must not share a home."""
    with contextlib.ExitStack() as stack:
        started = {name: stack.enter_context(Processor(*run)) for name, run in runs.items()}
        for processor in started.values():
            processor.wait()
    return started


class Events:
    """Lines that DAG files write to a named pipe, which EVENTS names in their environment."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)  # a writer of its own: never at its end
        self._rest = b""

    def __enter__(self) -> Events:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def lines(self, seconds: float) -> Iterator[str]:
        """Each line as it comes, for so many seconds in all."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            while b"\n" in self._rest:
                line, _, self._rest = self._rest.partition(b"\n")
                yield line.decode()
            if select.select([self._fd], [], [], left)[0]:
                self._rest += os.read(self._fd, 65536)

    def expect(self, wanted: str, seconds: float = 60) -> list[str]:
        """Read until this line comes; returns the lines before it. AssertionError if it does not come."""
        seen: list[str] = []
        for line in self.lines(seconds):
            if line == wanted:
                return seen
            seen.append(line)
        raise AssertionError(f"no {wanted!r} in {seconds} s, but {seen}")


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Write text files at paths relative to the folder."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def dag(name: str, *lines: str) -> str:
    """A DAG file: these lines, and a DAG with one task under them."""
    body = [
        "from airflow.sdk import DAG",
        "from airflow.providers.standard.operators.empty import EmptyOperator",
        *lines,
        f'with DAG("{name}", schedule=None):',
        '    EmptyOperator(task_id="only")',
    ]
    return "\n".join(body) + "\n"


def install(
    prefix: Path, name: str, files: Mapping[str, str], editable: Iterable[str] = (), version: str = "1.0"
) -> None:
    """Lay down a distribution as pip does, `editable` being names of its that lie elsewhere.

    It goes under a site prefix of the test's own; see `site_environment`.
    """
    site = _site_packages(prefix)
    write(site, files)
    info = f"{name}-{version}.dist-info"
    record = "".join(f"{path},,\n" for path in (*files, f"{info}/METADATA", f"{info}/RECORD"))
    write(
        site / info,
        {"METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", "RECORD": record},
    )
    if editable:
        write(site / info, {"top_level.txt": "\n".join(editable)})


def site_environment(prefix: Path) -> dict[str, str]:
    """Variables under which Python has `prefix` as one more site prefix, as Debian's has its own.

    So the tests have installed distributions of their own, and leave the environment that runs them alone.
    """
    start = prefix / "start"
    site = _site_packages(prefix)
    site.mkdir(parents=True, exist_ok=True)
    custom = f"import site\nsite.PREFIXES.append({str(prefix)!r})\nsite.addsitedir({str(site)!r})\n"
    write(start, {"sitecustomize.py": custom})
    return {"PYTHONPATH": str(start)}


def _site_packages(prefix: Path) -> Path:
    return prefix / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
