# SPDX-License-Identifier: Apache-2.0
"""Real Airflow processes in a home of their own, and a probe in each child that they fork.

The probe comes in through airflow_local_settings.py, so that nothing of Airflow is replaced: it registers an at-fork
hook which reports the birth of a child, and a signal which makes the child collect its garbage and report what it
costs. Reports are datagrams to a socket of the test: a test waits for facts, never for time to pass.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Report = dict[str, Any]

PROBE = """
import gc, json, os, signal, socket

def send(**facts):
    facts.update(pid=os.getpid(), ppid=os.getppid())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.sendto(json.dumps(facts).encode(), os.environ["PROBE_SOCKET"])

def cost():
    for _ in range(3):
        gc.collect()
    with open("/proc/self/smaps_rollup") as rollup:
        private = sum(int(line.split()[1]) for line in rollup if line.startswith("Private_"))
    return {"frozen": gc.get_freeze_count(), "private": private * 1024}

def born():
    # Listing the loose objects writes to each of them, so not where they are many: the interpreter
    # itself freezes a few hundred.
    frozen = gc.get_freeze_count()
    loose = len(gc.get_objects()) if frozen > 10_000 else None
    signal.signal(signal.SIGRTMIN + 3, lambda *_: send(event="cost", **cost()))
    send(event="born", frozen=frozen, loose=loose)

os.register_at_fork(after_in_child=born)
"""
ASK = signal.SIGRTMIN + 3  # Airflow takes SIGUSR2 for itself


class Mailbox:
    """Where the probes report."""

    def __init__(self) -> None:
        self._directory = tempfile.mkdtemp(prefix="ff-")  # a socket's path must be short: not pytest's
        self.path = os.path.join(self._directory, "s")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)

    def close(self) -> None:
        self._socket.close()
        shutil.rmtree(self._directory)

    def expect(self, wanted: Callable[[Report], bool], seconds: float = 60) -> Report:
        """The first report that is wanted; others that come before it are dropped."""
        deadline = time.monotonic() + seconds
        seen: list[Report] = []
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            with contextlib.suppress(TimeoutError):
                seen.append(json.loads(self._socket.recv(65536)))
                if wanted(seen[-1]):
                    return seen[-1]
        raise AssertionError(f"no such report in {seconds} s; seen: {seen}")

    def ask(self, pid: int) -> Report:
        """What this child costs after three collections."""
        os.kill(pid, ASK)
        return self.expect(lambda report: report["pid"] == pid and report["event"] == "cost")


@dataclass
class Running:
    """A process that a test started, with everything that it forks."""

    process: subprocess.Popen[bytes]
    log: Path
    _family: list[psutil.Process] = field(default_factory=list)

    def interrupt(self) -> None:
        """Ask it to end, and remember what it forked: after its end nobody can tell."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._family = psutil.Process(self.process.pid).children(recursive=True)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)

    def end(self) -> None:
        """After the interrupt, KILL for whatever of the tree is left; bounded."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(15)
        for member in self._family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(15)
        _gone, alive = psutil.wait_procs(self._family, timeout=15)
        assert not alive, f"left over: {alive}"

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")


@dataclass
class AirflowHome:
    """A migrated AIRFLOW_HOME, and the way to run processes in it."""

    path: Path
    mailbox: Mailbox
    running: list[Running] = field(default_factory=list)

    def environment(self, **settings: str) -> dict[str, str]:
        """The environment of a process; settings are written section__option=value."""
        bare = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        return {
            **bare,
            "AIRFLOW_HOME": str(self.path),
            "HOME": str(self.path),  # gunicorn leaves a control socket in it
            "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
            "PROBE_SOCKET": self.mailbox.path,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.path / "dags"),
            "AIRFLOW__CORE__PARALLELISM": "2",
            **{f"AIRFLOW__{name.upper()}": value for name, value in settings.items()},
        }

    def run(self, *command: str, seconds: float = 90, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run to the end; stdout and stderr as text."""
        return subprocess.run(
            command,
            env=self.environment(**settings),
            cwd=self.path,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def start(self, *command: str, **settings: str) -> Running:
        """Start and return; the fixture ends it."""
        log = self.path / f"process-{len(self.running)}.log"
        with log.open("wb") as out:
            environment = self.environment(**settings)
            process = subprocess.Popen(
                command, env=environment, cwd=self.path, stdout=out, stderr=out, stdin=subprocess.DEVNULL
            )
        self.running.append(Running(process, log))
        return self.running[-1]

    def reset(self) -> None:
        """The database as it was after the migration, for a second run under the same conditions."""
        # What a process that was killed leaves, and SQLite would replay.
        for left in ("airflow.db-wal", "airflow.db-shm"):
            (self.path / left).unlink(missing_ok=True)
        shutil.copy(self.path / "airflow.db.migrated", self.path / "airflow.db")

    def end(self) -> None:
        for running in reversed(self.running):
            running.interrupt()
        for running in reversed(self.running):
            running.end()
        self.running.clear()


@pytest.fixture(scope="session")
def migrated_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An AIRFLOW_HOME whose SQLite database is migrated: once a session, copied for each test."""
    # A fixed name, since tests/celery reads this file as a module of its own and would migrate again.
    home = tmp_path_factory.getbasetemp() / "airflow-home"
    if home.exists():
        return home
    (home / "dags").mkdir(parents=True)
    (home / "config").mkdir()
    (home / "config" / "airflow_local_settings.py").write_text(PROBE)
    mailbox = Mailbox()
    try:
        done = AirflowHome(home, mailbox).run("airflow", "db", "migrate", seconds=180)
    finally:
        mailbox.close()
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.copy(home / "airflow.db", home / "airflow.db.migrated")
    # The generated file names its own home in many places; the defaults follow AIRFLOW_HOME without it.
    (home / "airflow.cfg").unlink()
    return home


@pytest.fixture
def airflow_home(
    migrated_home: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[AirflowHome]:
    """A home for one test. What the test started is ended, and its logs are shown if the test failed."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    path = tmp_path / "home"
    shutil.copytree(migrated_home, path)
    home = AirflowHome(path, Mailbox())
    try:
        yield home
    finally:
        home.end()
        home.mailbox.close()
        # pytest shows what a fixture prints only for tests that failed.
        for log in sorted(path.glob("process-*.log")):
            print(f"---- {log.name}\n{log.read_text(errors='replace')[-6000:]}")
    left = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    assert not left, f"processes left behind: {left}"
