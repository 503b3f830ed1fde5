# SPDX-License-Identifier: Apache-2.0
"""`[frostfork] enabled` in real Airflow processes: what it does in each component, and that else nothing happens."""

from __future__ import annotations

import json
import socket
import sys
from typing import Any

import pytest

from frostfork.airflow.policy import _component

# What a process of this name knows after Airflow's start, and what a child of it has frozen at birth.
FACTS = """
import gc, json, os, sys
sys.argv = sys.argv[1:]
before = gc.get_freeze_count()
import airflow
frozen_by_import = gc.get_freeze_count() - before
pid = os.fork()
if pid == 0:
    os._exit(0)
os.waitpid(pid, 0)
print(json.dumps({"frozen_by_import": frozen_by_import}))
"""


def facts(home: Any, *argv: str, **settings: str) -> dict[str, Any]:
    """Run Airflow's start under this command line; `born` is the freeze count of a child."""
    done = home.run(sys.executable, "-c", FACTS, *argv, **settings)
    assert done.returncode == 0, done.stderr
    born = home.mailbox.expect(lambda report: report["event"] == "born", 5)
    return {**json.loads(done.stdout.splitlines()[-1]), "born": born["frozen"], "stderr": done.stderr}


@pytest.mark.airflow
@pytest.mark.parametrize("command", [["scheduler"], ["dag-processor"], ["celery", "worker"]], ids=" ".join)
def test_enabled_acts_in_every_component(airflow_home: Any, command: list[str]) -> None:
    found = facts(airflow_home, "airflow", *command, frostfork__enabled="True")
    assert found["born"] > 50_000
    assert found["frozen_by_import"] == 0  # the parent's collector is left alone
    assert "frostfork" not in found["stderr"]


@pytest.mark.airflow
@pytest.mark.parametrize(
    ("argv", "settings"),
    [
        (["airflow", "scheduler"], {}),
        (["airflow", "scheduler"], {"frostfork__enabled": "False", "frostfork__preload": "a wrong value"}),
        (["airflow", "scheduler"], {"frostfork__enabled": "True", "frostfork__components": "all,-scheduler"}),
        (["mine.py", "scheduler"], {"frostfork__enabled": "True"}),
    ],
    ids=["unset", "disabled", "left out", "a user's script"],
)
def test_else_nothing_happens(airflow_home: Any, argv: list[str], settings: dict[str, str]) -> None:
    found = facts(airflow_home, *argv, **settings)
    assert found["born"] < 1_000  # what the interpreter itself froze
    assert found["frozen_by_import"] == 0
    assert "frostfork" not in found["stderr"]


@pytest.mark.airflow
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"frostfork__enabled": "perhaps"}, "[frostfork] enabled is 'perhaps', but must be True or False."),
        (
            {"frostfork__enabled": "True", "frostfork__components": "scheduler,worker"},
            "('worker'), but must be",
        ),
        ({"frostfork__enabled": "True", "frostfork__preload": "all"}, "[frostfork] preload is 'all'"),
    ],
    ids=["enabled", "components", "preload"],
)
def test_wrong_setting_is_one_warning(airflow_home: Any, settings: dict[str, str], said: str) -> None:
    found = facts(airflow_home, "airflow", "scheduler", **settings)
    assert found["born"] < 1_000
    lines = [line for line in found["stderr"].splitlines() if "frostfork" in line]
    assert len(lines) == 1, found["stderr"]
    assert "frostfork stays off" in lines[0]
    assert said in lines[0]


@pytest.mark.airflow
@pytest.mark.timeout(240)
def test_triggerer(airflow_home: Any) -> None:
    """The process that runs the triggers, which stock Airflow forks unfrozen; started by `python -m airflow`."""
    private = {}
    for enabled in (False, True):
        airflow_home.start(
            *(sys.executable, "-m", "airflow", "triggerer", "--skip-serve-logs"),
            frostfork__enabled=str(enabled),
        )
        born = airflow_home.mailbox.expect(lambda report: report["event"] == "born")
        report = airflow_home.mailbox.ask(born["pid"])
        private[enabled] = report["private"]
        print(f"enabled={enabled}: frozen {report['frozen']:,}, private {report['private'] / 1e6:.1f} MB")
        assert (report["frozen"] > 100_000) is enabled
        airflow_home.end()
    assert private[True] <= private[False] * 0.7


@pytest.mark.airflow
@pytest.mark.timeout(240)
def test_gunicorn_api_worker(airflow_home: Any) -> None:
    pytest.importorskip("gunicorn", reason="gunicorn is not installed.")
    private = {}
    for enabled in (False, True):
        server = airflow_home.start(
            *("airflow", "api-server", "--host", "127.0.0.1", "--port", str(free_port())),
            *("--workers", "1", "--worker-timeout", "2"),
            api__server_type="gunicorn",
            frostfork__enabled=str(enabled),
        )
        # The arbiter forks nothing else.
        born = airflow_home.mailbox.expect(lambda report: report["event"] == "born")
        assert born["ppid"] == server.process.pid
        report = airflow_home.mailbox.ask(born["pid"])
        private[enabled] = report["private"]
        print(f"enabled={enabled}: frozen {report['frozen']:,}, private {report['private'] / 1e6:.1f} MB")
        assert (report["frozen"] > 100_000) is enabled
        airflow_home.end()
    assert private[True] <= private[False] / 2


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.mark.parametrize(
    ("argv", "orig_argv", "component"),
    [
        (["/opt/bin/airflow", "scheduler", "-D"], [], "scheduler"),
        (["airflow", "celery", "worker", "-q", "a"], [], "celery-worker"),
        (["airflow", "celery", "flower"], [], None),
        (["airflow"], [], None),
        (["airflow", "standalone"], [], None),
        (["/site-packages/airflow/__main__.py", "api-server"], [], "api-server"),
        (["__main__.py", "api-server"], [], None),
        (["-m", "triggerer"], ["python", "-X", "dev", "-m", "airflow", "triggerer"], "triggerer"),
        (["-m", "scheduler"], ["python", "-mairflow", "scheduler"], "scheduler"),
        (["-m", "airflow", "scheduler"], ["python", "-m", "pytest", "airflow", "scheduler"], None),
        (
            ["-m", "airflow", "dag-processor"],
            ["py", "-m", "frostfork", "airflow", "dag-processor"],
            "dag-processor",
        ),
        (["/opt/bin/frostfork", "airflow", "dag-processor"], [], "dag-processor"),
        (["/opt/bin/frostfork", "demo"], [], None),
        (["/usr/bin/pytest", "scheduler"], [], None),
        (["-c"], ["python", "-c", "import airflow"], None),
        ([""], ["python"], None),
        ([], [], None),
    ],
)
def test_component_of_a_command_line(argv: list[str], orig_argv: list[str], component: str | None) -> None:
    assert _component(argv, orig_argv) == component
