# SPDX-License-Identifier: Apache-2.0
"""What the DAG processor's parent meets on disk and must survive: it is asked before each fork."""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import time
import zipfile
from typing import TYPE_CHECKING

import pytest

from frostfork.ledger_file import LedgerFile
from frostfork.observe import ModuleImport, Observation
from frostfork.preload import PreloadPolicy
from frostfork.preloader import Preloader, find_installed
from frostfork.staleness import PYTHON, DistributionChange, InstalledWatch

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(60)]
pytest.importorskip("airflow")

from frostfork.airflow.folders import UserFolders  # noqa: E402
from frostfork.airflow.freshness import Freshness  # noqa: E402
from frostfork.airflow.remembering import Remembering  # noqa: E402


def folders(path: Path) -> UserFolders:
    found = UserFolders()
    found.add(str(path))
    return found


def test_an_archive_of_a_version_to_come(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "new.zip", "w") as archive:
        archive.writestr("a.py", "")
    data = (tmp_path / "new.zip").read_bytes()
    at = data.index(b"PK\x01\x02") + 6  # the version that is needed to read it
    (tmp_path / "new.zip").write_bytes(data[:at] + struct.pack("<H", 99) + data[at + 2 :])
    (tmp_path / "local.py").touch()
    with pytest.raises(NotImplementedError):
        zipfile.ZipFile(tmp_path / "new.zip")
    assert folders(tmp_path).names() == {"local"}


def test_a_pipe_that_is_named_like_an_archive(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.zip")
    (tmp_path / "local.py").touch()
    assert folders(tmp_path).names() == {"local"}


def test_a_ledger_that_another_process_holds_does_not_hold_up_the_manager(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    remembering = Remembering(str(path), 14)
    remembering.record(Observation([ModuleImport("csv", None, 0.0, 0.01, 0.01, None)]), "a.py")
    with open(tmp_path / ".ledger.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        start = time.monotonic()
        remembering.save()
        assert time.monotonic() - start < 5
    assert not path.exists()
    remembering.save()  # nothing was lost
    assert LedgerFile(path).load().get("csv") is not None


class PythonReplaced(InstalledWatch):
    """As after an upgrade of the interpreter under the processor."""

    def changes(self) -> list[DistributionChange]:
        return [DistributionChange(PYTHON, "3.14.0", "3.14.1")]


def test_nothing_of_a_standard_library_that_was_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    origin = os.path.join(os.path.dirname(os.__file__), "colorsys.py")
    preloader = Preloader(PreloadPolicy(find_installed()))
    Freshness("stop", preloader, watch=PythonReplaced()).look()
    assert preloader.learn(Observation([ModuleImport("colorsys", origin, 0.0, 0.01, 0.01, None)])) == []
    assert "replaced" in preloader.report.refused["colorsys"]
