# SPDX-License-Identifier: Apache-2.0
"""Logging in children of the DAG processor: as stock Airflow sets it up, with less written and in less time."""

from __future__ import annotations

import json
import logging
import logging.config
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import frostfork
from frostfork.airflow import child_logging
from tests.airflow.processor import Home, dag, run_together, write

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(180)]

# Both managers, in a process whose loggers are in every state that the set-up has to deal with. Without preloading and
# without a zygote, which is older than those states, so that both have the same modules and their loggers.
PROGRAM = """
import logging, sys
from frostfork.airflow.command import run_dag_processor
from airflow.dag_processing.manager import DagFileProcessorManager as Stock
from frostfork.airflow.manager import SharedParentManager as Ours

class Odd(Stock if sys.argv.pop(1) == "stock" else Ours):
    def prepare_process_context(self):
        super().prepare_process_context()
        import httpcore, httpx, airflow.sdk.log  # ours has them before the first fork, and stock in each child
        below = logging.getLogger("airflow.odd.below")  # "airflow.odd" is a place holder
        below.setLevel(logging.DEBUG)
        below.propagate = False
        below.addHandler(logging.NullHandler())
        other = logging.getLogger("odd.other")
        other.setLevel(logging.ERROR)
        other.disabled = True
        other.addHandler(logging.NullHandler())
        logging.getLogger("httpx").addHandler(logging.NullHandler())
        logging.getLogger("sqlalchemy.engine.odd").setLevel(logging.CRITICAL)
        for name in ("airflow.odd.below", "odd.other", "odd", "airflow.cached", "sqlalchemy.engine.odd", "httpx"):
            for level in (10, 20, 30, 40):
                logging.getLogger(name).isEnabledFor(level)

run_dag_processor(sys.argv[1:], Odd)
"""

STATE = """
import json, logging, os, sys, warnings
import structlog
from airflow.sdk._shared.logging.structlog import PER_LOGGER_LEVELS

def name(thing):
    return getattr(thing, "__qualname__", None) or type(thing).__qualname__

def handler(one):
    return [name(one), one.name, one.level, name(one.formatter), name(getattr(one, "stream", None))]

def state():
    loggers = {"": logging.root, **logging.root.manager.loggerDict}
    found = {}
    for key, one in loggers.items():
        if isinstance(one, logging.PlaceHolder):
            found[key] = ["place holder", getattr(one, "disabled", None)]
        else:
            handlers = [handler(each) for each in one.handlers]
            found[key] = [one.level, one.disabled, one.propagate, handlers, sorted(one._cache.items())]
    for key in ("airflow", "airflow.odd.below", "odd.other", "odd", "airflow.cached", "sqlalchemy.engine.odd"):
        found["enabled " + key] = [logging.getLogger(key).isEnabledFor(level) for level in (10, 20, 30, 40)]
    configured = structlog.get_config()
    return {
        "loggers": {key: value for key, value in found.items() if not key.startswith("frostfork")},
        "named handlers": list(logging._handlers), "handlers": len(logging._handlerList),
        "structlog": [[name(each) for each in configured["processors"]], name(configured["wrapper_class"])],
        "levels": sorted(PER_LOGGER_LEVELS.items()),
        "warnings": warnings.showwarning.__qualname__, "excepthook": sys.excepthook.__qualname__,
        "own functions": [logging.Manager._clear_cache.__module__, logging.config._handle_existing_loggers.__module__],
    }
"""

LINES = (
    STATE,
    "with open(os.environ['STATE'], 'w') as out: json.dump(state(), out)",
    "for key in ('odd', 'odd.other', 'airflow.odd.below', 'chatty'):",
    "    logging.getLogger(key).debug('debug of %s', key)",
    "    logging.getLogger(key).warning('warning of %s', key)",
    "structlog.get_logger('built').info('of structlog', number=1)",
    "warnings.warn('a warning')",
    "print('printed')",
)


def forwarded(home: Home) -> list[dict[str, Any]]:
    """The lines of the child that arrived, without their times; those of print come over a channel of their own."""
    (path,) = (home.path / "logs").rglob("talks.py.log")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines.sort(key=lambda line: line["logger"] == "dag_processor.stdout")
    return [{key: value for key, value in line.items() if key != "timestamp"} for line in lines]


def test_same_as_stock(migrated_home: Path, tmp_path: Path) -> None:
    """State of all loggers, of structlog and of the hooks when the DAG file runs; and the lines it logs."""
    pytest.importorskip("airflow")
    dags = tmp_path / "dags"
    write(dags, {"talks.py": dag("talks", *LINES)})
    homes = {name: Home.make(migrated_home, tmp_path / name) for name in ("stock", "ours")}
    runs = {
        name: (
            (sys.executable, "-c", PROGRAM, name, "--num-runs", "1"),
            home.environment(
                dags,
                STATE=str(home.path / "state.json"),
                frostfork__preload="off",
                frostfork__zygote="False",
                logging__namespace_levels="chatty=DEBUG odd=ERROR malformed",
            ),
        )
        for name, home in homes.items()
    }
    for processor in run_together(runs).values():
        assert processor.wait() == 0, processor.out + processor.err
    stock, ours = (json.loads((homes[name].path / "state.json").read_text()) for name in ("stock", "ours"))
    assert ours["own functions"] == ["logging", "logging.config"]
    for key in stock:
        if key != "loggers":
            assert ours[key] == stock[key], key
    differences = {
        key: (stock["loggers"].get(key), ours["loggers"].get(key))
        for key in {*stock["loggers"], *ours["loggers"]}
        if stock["loggers"].get(key) != ours["loggers"].get(key)
    }
    assert not differences
    assert len(stock["loggers"]) > 200
    assert stock["loggers"]["airflow.odd.below"][:4] == [logging.NOTSET, False, True, []]  # was all else
    said = forwarded(homes["stock"])
    assert {"warning of odd", "of structlog", "a warning", "printed"} <= {line["event"] for line in said}
    assert forwarded(homes["ours"]) == said


def make_loggers(count: int) -> None:
    for index in range(count):
        logger = logging.getLogger(f"thrifty.number{index}")
        logger.disabled = False
        logger.isEnabledFor(logging.INFO)
    logging.Manager._clear_cache(logging.root.manager)


def cost_of_set_up(thrifty: bool) -> dict[str, float]:
    """Configure logging in a child that inherited many loggers; its seconds and the pages that it unshared."""
    reading, writing = os.pipe()
    pid = frostfork.fork(baseline=True)
    if pid == 0:
        code = 1
        try:
            before = frostfork.child_baseline().compare().unshared
            start = time.process_time()
            config = {
                "version": 1,
                "disable_existing_loggers": False,
                "loggers": {"thrifty": {"level": "INFO"}},
            }
            if thrifty:
                with child_logging.thrifty_set_up():
                    logging.config.dictConfig(config)
            else:
                logging.config.dictConfig(config)
            seconds = time.process_time() - start
            pages = frostfork.child_baseline().compare().unshared - before
            os.write(writing, json.dumps({"seconds": seconds, "pages": pages}).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with open(reading, "rb") as said:
        cost: dict[str, float] = json.loads(said.read())
    assert os.waitpid(pid, 0)[1] == 0
    return cost


@pytest.mark.skipif(sys.version_info < (3, 12), reason="looking at an object writes its reference count")
def test_cost() -> None:
    """Forked, so that the loggers of this process stay as they are."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            make_loggers(500)
            frostfork.warmup(steps=("immortalize",))
            plain, thrifty = (
                min((cost_of_set_up(way) for _ in range(3)), key=lambda cost: cost["pages"])
                for way in (False, True)
            )
            print(plain, thrifty, flush=True)
            assert thrifty["pages"] < plain["pages"]
            assert thrifty["seconds"] < plain["seconds"] / 3
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


def test_unknown_airflow_is_left_alone() -> None:
    class Supervisor:
        pass

    child_logging.prepare(Supervisor)
    assert not vars(Supervisor).get("_configure_logs_over_json_channel")
