# SPDX-License-Identifier: Apache-2.0
"""A real `airflow celery worker`: the child that replaces one that ended is frozen, which stock Airflow's is not."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytestmark = [pytest.mark.airflow, pytest.mark.celery, pytest.mark.timeout(240)]
pytest.importorskip("celery", reason="Celery is not installed.")
pytest.importorskip("airflow.providers.celery", reason="Airflow's Celery provider is not installed.")

TASK = """
from airflow_local_settings import cost, send
from celery import shared_task

@shared_task(name="probe", ignore_result=True)
def probe():
    send(event="task", **cost())
"""
EXTRA = {"imports": ["probe_task"], "worker_max_tasks_per_child": 1}


def three_children(home: Any, redis_url: str, enabled: bool) -> list[dict[str, int]]:
    """What a first child, and then the other first one and a replacement cost, in either order: one task a child."""
    (home.path / "config" / "probe_task.py").write_text(TASK)
    home.start(
        *("airflow", "celery", "worker", "--concurrency", "2", "--skip-serve-logs", "--without-mingle"),
        celery__broker_url=redis_url,
        celery__result_backend=redis_url,
        celery__pool="prefork",
        celery__extra_celery_config=json.dumps(EXTRA),
        frostfork__enabled=str(enabled),
    )
    reports: list[dict[str, int]] = []
    try:
        for _ in range(3):
            # From a process of its own: a client leaves connections open in the one that it runs in.
            sent = home.run("celery", "--broker", redis_url, "call", "probe", "--queue", "default")
            assert sent.returncode == 0, sent.stderr
            reports.append(home.mailbox.expect(lambda report: report["event"] == "task", 60))
    finally:
        home.end()
    assert len({report["pid"] for report in reports}) == 3
    return reports


def test_replacement_child_is_frozen(airflow_home: Any, redis_url: str) -> None:
    stock = three_children(airflow_home, redis_url, enabled=False)
    frostfork = three_children(airflow_home, redis_url, enabled=True)
    for name, reports in (("stock", stock), ("frostfork", frostfork)):
        for child, report in zip(("first", "later", "later"), reports, strict=True):
            print(
                f"{name:9} {child:11} frozen {report['frozen']:7,} private {report['private'] / 1e6:6.1f} MB"
            )
    replacement = min(stock[1:], key=lambda report: report["frozen"])
    assert replacement["frozen"] < 1_000  # what is measured here is still true of this Airflow
    for report in frostfork[1:]:  # one of them is the replacement
        assert report["frozen"] > 100_000
        assert report["private"] <= replacement["private"] / 2
    # The first children were frozen at the provider's hand, but before the configured imports were loaded.
    assert frostfork[0]["frozen"] >= stock[0]["frozen"]
    assert frostfork[0]["private"] <= stock[0]["private"] * 1.25  # runs differ by 3 of 20 MB
