# SPDX-License-Identifier: Apache-2.0
"""The options of the preload policy in real DAG processors: the ledger's file, limits, explain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.airflow.options import DAGS, Place

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(600)]
pytest.importorskip("airflow")

NO_BUNDLE = '[{"name": "x", "classpath": "nowhere.Bundle", "kwargs": {}}]'


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
