# SPDX-License-Identifier: Apache-2.0
"""The options of the preload policy in real DAG processors: the ledger's file, limits, what happens to stale modules."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

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
MODULES = {
    "ff_shared.py": "VALUE = 'old'\n",
    "ff_single.py": "VALUE = 'old'\n",
    # It would give all children the value of the day on which it was imported.
    "ff_asks.py": "from airflow.sdk import Variable\nVALUE = Variable.get('x', default='none')\n",
    "ff_session.py": "from airflow.settings import Session\n",
}
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

    def explain(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).parent / "frostfork"), "airflow", "explain", *arguments]
        return subprocess.run(
            command,
            env=self.environment(**settings),
            cwd=self.path,
            capture_output=True,
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
        """The first line that begins with one of these. AssertionError if none comes."""
        seen = []
        for line in self.events.lines(SECONDS):
            seen.append(line)
            if line.startswith(tuple(wanted)):
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
    place.run(2)
    ledger = place.home.path / "frostfork-ledger.json"
    ledger.write_bytes(ledger.read_bytes()[:-40])
    output = place.run(2)
    assert "frostfork-ledger.json" in output
    assert (
        len(list(place.home.path.glob("frostfork-ledger.json*"))) >= 2
    )  # what was damaged is kept for a look
    assert "ff_shared" in place.home.report()["preloaded"]


def test_limits_and_the_database(place: Place) -> None:
    place.run(4, frostfork__min_files="2", frostfork__ledger="")
    report = place.home.report()
    assert "ff_shared" in report["preloaded"]
    assert "min_files" in report["refused"]["ff_single"]
    assert "Variable" in report["refused"]["ff_asks"]
    assert not list(place.home.path.glob("frostfork-ledger*"))
    # What takes Session at its top gets the one that children get, which refuses.
    assert "ff_session" in report["preloaded"]


def test_explain(place: Place) -> None:
    place.run(3)
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
    done = place.explain("ff_single", frostfork__min_files="2")
    assert "ff_single is not preloaded" in done.stdout
    assert "min_files" in done.stdout
    done = place.explain("ff_unknown")
    assert done.returncode == 1
    assert "none imported ff_unknown" in done.stderr
    assert "Traceback" not in done.stderr
    done = place.explain("ff_shared", frostfork__ledger="")
    assert done.returncode == 1
    assert "[frostfork] ledger" in done.stderr


@pytest.mark.parametrize("action", ["stop", "renew", "warn"])
def test_a_distribution_that_changes_on_disk(place: Place, action: str) -> None:
    environment = place.environment(frostfork__stale=action)
    with Processor((*COMMANDS["frostfork"],), environment) as processor:
        place.await_line([f"{name} old with" for name in ("one", "two", "three")])
        place.install("2.0", "new")
        if action == "warn":
            processor_log = place.await_output(processor, "ff_options 1.0 became 2.0")
            assert processor_log.count("became 2.0") == 1
            assert place.await_line(["one "]) == "one old with"
        else:
            line = place.await_line([f"{name} new" for name in ("one", "two", "three")])
            assert line.endswith("without" if action == "stop" else ("with", "without"))
        if action == "renew":
            place.await_line(
                ["one new with", "two new with"]
            )  # what is new was learned, or read from the ledger
        assert Path(f"/proc/{processor.pid}").exists()  # the same process, whoever watches it
        processor.signal(signal.SIGTERM)
        assert processor.wait(60) == os.EX_OK
        assert "ff_options 1.0 became 2.0" in processor.out + processor.err
        assert not processor.left_over()
