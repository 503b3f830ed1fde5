# SPDX-License-Identifier: Apache-2.0
"""LocalExecutor's workers, and a task process, side by side with stock Airflow.

Stock Airflow freezes in the parent while it forks LocalExecutor's workers, so there the point is to be no worse, and to
freeze what it does not: workers forked any other way, the log server, the task processes.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

import pytest

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(300)]

# A scheduler as far as frostfork can see. The last worker is forked by itself, after further imports.
SCHEDULER = """
import multiprocessing, os, sys
sys.argv = ["airflow", "scheduler"]
import airflow
from airflow.executors.local_executor import LocalExecutor
from airflow_local_settings import send
multiprocessing.set_start_method("fork")  # Python 3.14 has another default
executor = LocalExecutor(parallelism=2)
executor.start()
import airflow.jobs.scheduler_job_runner, airflow.providers.standard.operators.python
executor._spawn_worker()
send(event="workers", pids=list(executor.workers))
open("go").read()
executor.end()
"""

DAG = """
from airflow.sdk import dag, task
from datetime import datetime

@dag(schedule="@once", start_date=datetime(2024, 1, 1), is_paused_upon_creation=False)
def measured():
    @task
    def report():
        from airflow_local_settings import cost, send
        send(event="task", **cost())
    report()

measured()
"""


def show(name: str, enabled: bool, report: dict[str, int]) -> None:
    print(
        f"{name:14} enabled={enabled!s:5} frozen {report['frozen']:7,} private {report['private'] / 1e6:6.1f} MB"
    )


@pytest.fixture
def workers(airflow_home: Any) -> dict[bool, list[dict[str, int]]]:
    """What the three workers of SCHEDULER cost, in the order in which they were forked: stock and enabled."""
    os.mkfifo(airflow_home.path / "go")
    found: dict[bool, list[dict[str, int]]] = {}
    mailbox = airflow_home.mailbox
    for enabled in (False, True):
        scheduler = airflow_home.start(sys.executable, "-c", SCHEDULER, frostfork__enabled=str(enabled))
        reports = [mailbox.expect(lambda report: report["event"] in ("born", "workers")) for _ in range(4)]
        born = {report["pid"]: report for report in reports if report["event"] == "born"}
        (pids,) = (report["pids"] for report in reports if report["event"] == "workers")
        found[enabled] = [{**born[pid], **mailbox.ask(pid)} for pid in pids]
        (airflow_home.path / "go").write_text("")
        assert scheduler.process.wait(30) == 0  # the workers ended as Airflow has them end
        for name, worker in zip(("first", "second", "by itself"), found[enabled], strict=True):
            show(name, enabled, worker)
    return found


def test_workers(workers: dict[bool, list[dict[str, int]]]) -> None:
    stock, frostfork = workers[False], workers[True]
    for worker in frostfork:
        assert worker["frozen"] > 100_000
        assert worker["loose"] < 100  # at birth nothing inherited was left to the collector
    for before, after in zip(stock, frostfork, strict=True):
        assert after["private"] <= before["private"] * 1.1
    # The one that stock Airflow's freeze does not reach.
    assert stock[2]["frozen"] < 1_000
    assert frostfork[2]["private"] <= stock[2]["private"] / 2


def test_task_process(airflow_home: Any) -> None:
    """A DAG run through api-server, scheduler, LocalExecutor and its supervisor; the task itself reports."""
    (airflow_home.path / "dags" / "measured.py").write_text(DAG)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    settings = {
        "api__port": port,
        "api__host": "127.0.0.1",
        "api__base_url": f"http://127.0.0.1:{port}",
        "core__execution_api_server_url": f"http://127.0.0.1:{port}/execution/",
        "core__mp_start_method": "fork",
        "api_auth__jwt_secret": "only for this test, and long enough for any of the algorithms of its kind",
        "scheduler__enable_health_check": "False",
    }
    found = {}
    for enabled in (False, True):
        settings["frostfork__enabled"] = str(enabled)
        # Nobody waits for the server: the supervisor tries again until it answers.
        airflow_home.start("airflow", "api-server", "--workers", "1", **settings)
        serialized = airflow_home.run("airflow", "dags", "reserialize", **settings)
        assert serialized.returncode == 0, serialized.stderr
        airflow_home.start("airflow", "scheduler", "--skip-serve-logs", **settings)
        found[enabled] = airflow_home.mailbox.expect(lambda report: report["event"] == "task", 90)
        show("task", enabled, found[enabled])
        airflow_home.end()
        airflow_home.reset()
    assert found[True]["frozen"] >= found[False]["frozen"]
    assert found[True]["frozen"] > 100_000
    assert found[True]["private"] <= found[False]["private"] * 1.05
