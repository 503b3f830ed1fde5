# SPDX-License-Identifier: Apache-2.0
"""What the DAG processor does when a distribution that its parent has imported changes on disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.airflow.options import SECONDS, Place
from tests.airflow.processor import COMMANDS, Processor, dag, write

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(600)]
pytest.importorskip("airflow")

REST_SECONDS = 15  # without another change, until the processor begins anew


@pytest.fixture
def place(migrated_home: Path, tmp_path: Path) -> Iterator[Place]:
    place = Place(migrated_home, tmp_path)
    with place.events:
        yield place


@pytest.mark.parametrize(
    ("action", "zygote"), [("stop", True), ("stop", False), ("renew", True), ("renew", False), ("warn", True)]
)
def test_a_distribution_that_changes_on_disk(place: Place, action: str, zygote: bool) -> None:
    environment = place.environment(frostfork__stale=action, frostfork__zygote=str(zygote))
    names = ("one", "two", "three")
    old = [f"{name} old with" for name in names]
    new = [f"{name} new with" for name in names]
    with Processor((*COMMANDS["frostfork"],), environment) as processor:
        place.await_line(old)
        place.install("2.0", "new")
        if action == "warn":
            said = place.await_output(processor, "ff_options 1.0 became 2.0")
            assert said.count("became 2.0") == 1
            assert place.await_line([*old, *new]) in old
        elif action == "stop":
            place.await_line([f"{name} new without" for name in names])
        else:
            place.await_line(new)  # learned anew, or read from the ledger
        assert psutil.Process(processor.pid).is_running()  # the same process, whoever watches it
        processor.signal(signal.SIGTERM)
        assert processor.wait(60) == os.EX_OK, processor.out[-6000:] + processor.err
        said = processor.out + processor.err
        assert "ff_options 1.0 became 2.0" in said
        assert not processor.left_over()
        # The manager has imported nothing of it: a new zygote is enough, and it goes on.
        assert ("frostfork has a new zygote, number 2: ff_options changed" in said) is (
            zygote and action == "renew"
        )
        assert said.count("Processing files using up to") == (2 if action == "renew" and not zygote else 1)


HELD = dag(
    "held",
    "import os, time",
    "if os.path.exists(os.environ['HOLD']):",
    "    with open(os.environ['EVENTS'], 'a') as out: out.write('held\\n')",
    "    while os.path.exists(os.environ['HOLD']): time.sleep(0.01)",
)
NOTIFY = dag(
    "notify",
    "import os",
    "def failed(context):",
    "    with open(os.environ['EVENTS'], 'a') as out: out.write(context['run_id'] + '\\n')",
).replace("schedule=None", "schedule=None, on_failure_callback=failed")
QUEUE_CALLBACK = """
import sys
from airflow.callbacks.callback_requests import DagCallbackRequest
from airflow.callbacks.database_callback_sink import DatabaseCallbackSink
DatabaseCallbackSink().send(DagCallbackRequest(
    filepath="notify.py", bundle_name="dags-folder", bundle_version=None, msg="", dag_id="notify", run_id=sys.argv[1]))
"""


def test_callbacks_are_run_though_the_processor_begins_anew(place: Place) -> None:
    """One that it has fetched before it decides to begin anew, and one that comes while it waits for its last child."""
    hold = place.path / "hold"
    write(place.path / "dags", {"held.py": HELD, "notify.py": NOTIFY})
    environment = place.environment(
        frostfork__stale="renew",
        frostfork__zygote="False",
        dag_processor__parsing_processes="1",
        HOLD=str(hold),
    )

    def queue_callback(run: str) -> None:
        subprocess.run([sys.executable, "-c", QUEUE_CALLBACK, run], env=environment, check=True, timeout=60)

    with Processor(COMMANDS["frostfork"], environment) as processor:
        place.await_line([f"{name} old with" for name in ("one", "two", "three")])
        place.install("2.0", "new")
        place.await_output(processor, "ff_options 1.0 became 2.0")
        noticed = time.monotonic()
        hold.touch()
        place.await_line(["held"])
        queue_callback("fetched")
        while place.home.rows("SELECT * FROM callback"):
            assert time.monotonic() < noticed + SECONDS
            time.sleep(0.05)
        decided = noticed + REST_SECONDS + 1
        assert time.monotonic() < decided, "too slow for this test"
        time.sleep(decided - time.monotonic())
        began, used = time.monotonic(), psutil.Process(processor.pid).cpu_times().user
        queue_callback("left")
        time.sleep(1)  # four times as long as it takes to be fetched
        used = psutil.Process(processor.pid).cpu_times().user - used
        assert (
            used < (time.monotonic() - began) / 4
        )  # it waits for its last child, and does not look all the time
        hold.unlink()
        assert {place.await_line(["fetched", "left"]) for _ in range(2)} == {"fetched", "left"}
        place.await_line([f"{name} new with" for name in ("one", "two", "three")])
        processor.signal(signal.SIGTERM)
        assert processor.wait(60) == os.EX_OK, processor.out[-6000:] + processor.err
