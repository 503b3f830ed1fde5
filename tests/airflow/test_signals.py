# SPDX-License-Identifier: Apache-2.0
"""A signal at a moment when Airflow's own manager cannot take one."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.airflow.processor import Home, Processor, dag, write

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(180)]
pytest.importorskip("airflow")

# Ours; it sends itself a signal in the middle of forwarding the first log line of a child. The renderer of JSON is the
# last of the processors that a line passes, and the manager's own lines do not pass it.
INTERRUPTED = """
import os, sys
import structlog
from frostfork.airflow.command import run_dag_processor
from frostfork.airflow.manager import SharedParentManager

manager = os.getpid()
render = structlog.processors.JSONRenderer.__call__
pending = [int(os.environ["SIGNAL"])]

def interrupted(self, *arguments):
    if pending and os.getpid() == manager:
        os.kill(manager, pending.pop())
        print("forwarded on", flush=True)
    return render(self, *arguments)

structlog.processors.JSONRenderer.__call__ = interrupted
run_dag_processor(sys.argv[1:], SharedParentManager)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_while_a_line_is_forwarded(migrated_home: Path, tmp_path: Path, number: int) -> None:
    """The line is forwarded first; then the manager ends its children and itself, with exit code 0."""
    dags = tmp_path / "dags"
    lines = (
        "import logging, time",
        "logging.getLogger('dag').warning('a line of a child')",
        "time.sleep(600)",
    )
    write(dags, {"talks.py": dag("talks", *lines)})
    home = Home.make(migrated_home, tmp_path / "home")
    environment = home.environment(dags, SIGNAL=str(int(number)))
    with Processor((sys.executable, "-c", INTERRUPTED), environment) as processor:
        assert processor.wait(90) == os.EX_OK, processor.out + processor.err
    said = processor.out + processor.err
    assert "forwarded on" in said
    assert f"Exiting gracefully upon receiving signal {int(number)}" in said
    assert "generator already executing" not in said
    logs = "".join(path.read_text() for path in (home.path / "logs").rglob("*.log"))
    assert "a line of a child" in logs


# Ours; the manager's loop drops an object, and the signal comes while that ends.
FINALIZED = """
import os, sys
from frostfork.airflow.command import run_dag_processor
from frostfork.airflow.manager import SharedParentManager

manager = os.getpid()

class Ends:
    def __del__(self):
        os.kill(manager, int(os.environ["SIGNAL"]))

class Dropping(SharedParentManager):
    dropped = False

    def fetch_callbacks(self):
        if self._processors and not self.dropped:
            self.dropped = True
            Ends()
            print("went on", flush=True)
        return super().fetch_callbacks()

run_dag_processor(sys.argv[1:], Dropping)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_while_an_object_ends(migrated_home: Path, tmp_path: Path, number: int) -> None:
    """Python drops the SystemExit of Airflow's handler there; the manager ends all the same, with its children."""
    dags = tmp_path / "dags"
    write(dags, {"waits.py": dag("waits", "import time", "time.sleep(600)")})
    home = Home.make(migrated_home, tmp_path / "home")
    environment = home.environment(dags, SIGNAL=str(int(number)))
    with Processor((sys.executable, "-c", FINALIZED), environment) as processor:
        assert processor.wait(90) == os.EX_OK, processor.out + processor.err
        assert processor.left_over() == []
    said = processor.out + processor.err
    assert "went on" in said
    assert f"Exiting gracefully upon receiving signal {int(number)}" in said


# A SIGTERM while the manager writes a log line, once it has its handlers: structlog holds a lock then.
IN_A_LINE = """
import os, signal, sys, threading
from types import SimpleNamespace
from structlog import _output

class Lock:
    left = 5

    def __init__(self):
        self._lock = threading.Lock()

    def locked(self):
        return self._lock.locked()

    def __enter__(self):
        self._lock.acquire()
        if os.getpid() == manager and callable(signal.getsignal(signal.SIGTERM)):
            Lock.left -= 1
            if Lock.left == 0:
                os.kill(manager, signal.SIGTERM)

    def __exit__(self, *_):
        self._lock.release()

manager = os.getpid()
_output.threading = SimpleNamespace(Lock=Lock)
from frostfork.airflow.command import run_dag_processor
from frostfork.airflow.manager import SharedParentManager
run_dag_processor(sys.argv[1:], SharedParentManager)
"""


def test_a_signal_in_the_middle_of_a_log_line(migrated_home: Path, tmp_path: Path) -> None:
    """Its handler logs, too, and would wait for ever for the line that it interrupted; so it does in stock Airflow."""
    home = Home.make(migrated_home, tmp_path / "home")
    write(tmp_path / "dags", {"one.py": dag("one"), "two.py": dag("two")})
    with Processor((sys.executable, "-c", IN_A_LINE), home.environment(tmp_path / "dags")) as processor:
        assert processor.wait(60) == 0
        assert "Exiting gracefully" in processor.out
        assert processor.left_over() == []
