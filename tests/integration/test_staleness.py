# SPDX-License-Identifier: Apache-2.0
"""A distribution that changes on disk is noticed: real metadata folders on sys.path, as installers leave them."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from frostfork.staleness import InstalledWatch


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    return tmp_path


def install(site: Path, version: str, name: str = "frozen_peas") -> None:
    """As pip does: the old version goes with its folder, the new one comes with another."""
    remove(site, name)
    folder = site / f"{name}-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (folder / "RECORD").write_text(f"{name}.py,,\n")


def remove(site: Path, name: str = "frozen_peas") -> None:
    for folder in site.glob(f"{name}-*.dist-info"):
        shutil.rmtree(folder)


@pytest.fixture
def watch(site: Path) -> InstalledWatch:
    install(site, "1.0")
    watch = InstalledWatch(seconds=0)
    watch.add(["frozen_peas", None, "no-such-distribution"])
    assert watch.changes() == []
    return watch


@pytest.mark.parametrize(
    ("version", "said"),
    [("2.0", "frozen_peas 1.0 became 2.0"), ("0.9", "frozen_peas 1.0 became 0.9")],
)
def test_another_version_is_told_once(site: Path, watch: InstalledWatch, version: str, said: str) -> None:
    install(site, version)
    assert [str(change) for change in watch.changes()] == [said]
    assert watch.changes() == []


def test_the_same_version_installed_again_is_a_change(site: Path, watch: InstalledWatch) -> None:
    install(site, "1.0")
    assert [str(change) for change in watch.changes()] == ["frozen_peas 1.0 was installed again"]


def test_a_removed_distribution_is_told_and_then_forgotten(site: Path, watch: InstalledWatch) -> None:
    remove(site)
    assert watch.changes() == []  # it may be amid an upgrade
    assert [str(change) for change in watch.changes()] == ["frozen_peas 1.0 was removed"]
    install(site, "1.0")
    assert watch.changes() == []


def test_an_upgrade_is_one_change_however_long_it_takes(site: Path, watch: InstalledWatch) -> None:
    remove(site)
    assert watch.changes() == []
    install(site, "2.0")
    assert [str(change) for change in watch.changes()] == ["frozen_peas 1.0 became 2.0"]


def test_an_editable_install_in_its_place_is_a_change(site: Path, watch: InstalledWatch) -> None:
    install(site, "1.0+editable")
    (site / "frozen_peas-1.0+editable.dist-info" / "direct_url.json").write_text(
        '{"dir_info": {"editable": true}}'
    )
    assert [change.after for change in watch.changes()] == ["1.0+editable"]


def test_what_is_added_again_keeps_its_first_state(site: Path, watch: InstalledWatch) -> None:
    install(site, "2.0")
    watch.add(["frozen_peas"])
    assert [change.before for change in watch.changes()] == ["1.0"]


def test_it_looks_no_more_often_than_asked(site: Path) -> None:
    install(site, "1.0")
    watch = InstalledWatch(seconds=3600)
    watch.add(["frozen_peas"])
    assert watch.changes() == []
    install(site, "2.0")
    assert watch.changes() == []  # within the hour
