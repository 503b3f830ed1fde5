# SPDX-License-Identifier: Apache-2.0
"""The options of the preload policy in real DAG processors: the ledger's file, limits, stale modules, explain."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import psutil
import pytest

from tests.airflow.processor import (
    COMMANDS,
    REPORTING,
    Events,
    Home,
    Processor,
    dag,
    install,
    site_environment,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(600)]
pytest.importorskip("airflow")

SECONDS = 60  # for a change to be seen
REST_SECONDS = 15  # without another change, until the processor begins anew
MODULES = {
    "ff_shared.py": "VALUE = 'old'\n",
    "ff_single.py": "VALUE = 'old'\n",
    # It would give all children the value of the day on which it was imported.
    "ff_asks.py": "from airflow.sdk import Variable\nVALUE = Variable.get('x', default='none')\n",
    "ff_session.py": "from airflow.settings import Session\n",
}
NO_BUNDLE = '[{"name": "x", "classpath": "nowhere.Bundle", "kwargs": {}}]'
TELL = (
    "import os",
    "with open(os.environ['EVENTS'], 'a') as out: out.write(f'{NAME} {ff_shared.VALUE} {born}\\n')",
)


def file(name: str, *modules: str) -> str:
    born = "born = 'with' if 'ff_shared' in sys.modules else 'without'"
    return dag(
        name, "import sys", born, *(f"import {module}" for module in modules), f"NAME = {name!r}", *TELL
    )


DAGS = {
    "one.py": file("one", "ff_shared", "ff_single"),
    "two.py": file("two", "ff_shared", "ff_asks", "ff_session"),
    "three.py": file("three", "ff_shared", "ff_asks", "ff_session"),
}


class Place:
    """A home, a site prefix and a folder of one test."""

    def __init__(self, migrated: Path, path: Path) -> None:
        self.path = path
        self.home = Home.make(migrated, path / "home")
        self.install("1.0", "old")
        write(path / "dags", DAGS)
        self.events = Events(path / "events")

    def install(self, version: str, value: str) -> None:
        """As pip does: the files, then the metadata of the new version in the place of the old."""
        files = {name: text.replace("'old'", repr(value)) for name, text in MODULES.items()}
        site = next(iter(self.path.glob("site/lib/*/site-packages")), None)
        for old in site.glob("ff_options-*.dist-info") if site is not None else ():
            shutil.rmtree(old)
        install(self.path / "site", "ff_options", files, version=version)

    def environment(self, **settings: str) -> dict[str, str]:
        return self.home.environment(
            self.path / "dags",
            EVENTS=str(self.events.path),
            frostfork__min_children="1",
            **site_environment(self.path / "site"),
            **settings,
        )

    def run(self, rounds: int, **settings: str) -> str:
        """So many rounds; returns what the processor printed."""
        with Processor((*REPORTING, "--num-runs", str(rounds)), self.environment(**settings)) as processor:
            status = processor.wait()
            output = processor.out + processor.err
        assert status == 0, output[-4000:]
        return output

    def explain(
        self, *arguments: str, stdout: TextIO | int = subprocess.PIPE, **settings: str
    ) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).parent / "frostfork"), "airflow", "explain", *arguments]
        return subprocess.run(
            command,
            env=self.environment(**settings),
            cwd=self.path,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            timeout=100,
            check=False,
        )

    def await_output(self, processor: Processor, wanted: str) -> str:
        """Look with each line that comes, for want of a better clock, until the processor has printed this."""
        for _ in self.events.lines(SECONDS):
            if wanted in processor.out + processor.err:
                return processor.out + processor.err
        raise AssertionError(f"no {wanted!r} in {SECONDS} s: {processor.out[-3000:]}")

    def await_line(self, wanted: Sequence[str]) -> str:
        """The first line that is one of these. AssertionError if none comes."""
        seen = []
        for line in self.events.lines(SECONDS):
            seen.append(line)
            if line in wanted:
                return line
        raise AssertionError(f"none of {wanted} in {SECONDS} s, but {seen[-20:]}")


@pytest.fixture
def place(migrated_home: Path, tmp_path: Path) -> Iterator[Place]:
    place = Place(migrated_home, tmp_path)
    with place.events:
        yield place


def test_a_restarted_processor_need_not_learn_again(place: Place) -> None:
    place.run(3)
    ledger = place.home.path / "frostfork-ledger.json"
    assert ledger.stat().st_mode & 0o777 == 0o600
    list(place.events.lines(1))
    place.run(1)
    lines = list(place.events.lines(1))
    assert len(lines) >= len(DAGS)
    assert all(line.endswith(" with") for line in lines), lines


def test_a_damaged_ledger_is_set_aside(place: Place) -> None:
    ledger = place.home.path / "frostfork-ledger.json"
    ledger.write_bytes(b"no ledger at all")
    ledger.chmod(0o600)
    output = place.run(2)
    assert "no ledger" not in ledger.read_text()
    aside = [path for path in place.home.path.glob("frostfork-ledger.json*") if path != ledger]
    assert [path.read_bytes() for path in aside if b"no ledger" in path.read_bytes()] == [b"no ledger at all"]
    assert "frostfork-ledger.json" in output


def test_explain(place: Place) -> None:
    place.run(4)
    # What takes Session at its top gets the one that children get, which refuses.
    assert {"ff_shared", "ff_session", "ff_single"} <= set(place.home.report()["preloaded"])
    assert "Variable" in place.home.report()["refused"]["ff_asks"]
    done = place.explain("ff_shared")
    assert done.returncode == 0, done.stderr
    assert "ff_shared is preloaded" in done.stdout
    assert "canary          found nothing" in done.stdout
    done = place.explain("ff_asks", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["preload"], answer["distribution"]) == (False, "ff_options")
    assert sorted(answer["files"]) == ["three.py", "two.py"]
    assert "Variable" in answer["reason"]
    done = place.explain("ff_single", "--no-canary", frostfork__min_files="2")
    assert "ff_single is not preloaded" in done.stdout
    assert "min_files" in done.stdout
    assert "not asked" in done.stdout
    with open("/dev/full", "w") as full:
        done = place.explain("ff_shared", "--no-canary", stdout=full)
    assert done.returncode == 1
    assert done.stderr.endswith("Error: standard output cannot be written: No space left on device.\n")
    # Asked under another user's name, it leaves the file to its owner, and makes no lock that he could not open.
    ledger = place.home.path / "frostfork-ledger.json"
    ledger.chmod(0o620)
    (place.home.path / f".{ledger.name}.lock").unlink()
    before = {path.name for path in place.home.path.iterdir()}
    done = place.explain("ff_shared")
    assert done.returncode == 1
    assert "others may write it" in done.stderr
    assert {path.name for path in place.home.path.iterdir()} == before


@pytest.mark.parametrize(
    ("module", "settings", "said"),
    [
        ("ff_unknown", {}, "of the 0 children in"),
        ("ff_shared", {"frostfork__ledger": ""}, "[frostfork] ledger is empty"),
        ("ff_shared", {"frostfork__min_files": "0"}, "[frostfork] min_files is '0'"),
        ("ff_shared", {"dag_processor__dag_bundle_config_list": NO_BUNDLE}, "cannot make its DAG bundles"),
    ],
)
def test_explain_of_what_cannot_be_explained(
    place: Place, module: str, settings: dict[str, str], said: str
) -> None:
    done = place.explain(module, **settings)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


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
