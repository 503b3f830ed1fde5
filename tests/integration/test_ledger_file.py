# SPDX-License-Identifier: Apache-2.0
"""A ledger in a file: shared by processes, whole after a kill or a full disk, and not taken from anybody."""

from __future__ import annotations

import fcntl
import logging
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from frostfork import Ledger, LedgerError, LedgerFile, ModuleImport, Observation
from frostfork.preload.codec import to_bytes
from tests.integration.forking import run_child, wait_bounded

pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")

NOBODY = 65534


def seen(*names: str, source: str = "/dags/a.py", now: float = 1e9) -> Ledger:
    ledger = Ledger()
    modules = [ModuleImport(name, f"/lib/{name}.py", 1.0, 0.5, 0.5, None, 4096, 4096) for name in names]
    ledger.record(Observation(modules, complete=True, wall_seconds=1.0), source, now=now)
    return ledger


def beside(path: Path) -> set[str]:
    """Names in the folder, without the lock."""
    return {name for name in os.listdir(path.parent) if not name.endswith(".lock")}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


def test_what_was_added_is_there_after_a_restart(path: Path) -> None:
    file = LedgerFile(path)
    assert len(file.load()) == 0
    assert not path.exists()
    file.add(seen("pandas", "numpy"))
    whole = LedgerFile(str(path)).add(seen("pandas", source="/dags/b.py"))
    assert to_bytes(whole) == to_bytes(LedgerFile(path).load()) == path.read_bytes()
    record = whole.get("pandas")
    assert record is not None
    assert (record.children, record.files, record.seconds, record.bytes) == (2, 2, 1.0, 8192)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert beside(path) == {"ledger"}


def test_forgetting_lasts(path: Path) -> None:
    file = LedgerFile(path)
    file.add(seen("old", source="/dags/old.py", now=100.0))
    whole = file.add(seen("new", now=200.0), forget_before=150.0)
    assert [record.name for record in whole] == [record.name for record in file.load()] == ["new"]


def test_processes_that_add_at_once_lose_nothing(path: Path) -> None:
    ready, go = os.pipe()
    pids = []
    for number in range(6):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.close(go)
                os.read(ready, 1)  # all begin at the same moment: when the parent closes its end
                for at in range(20):
                    LedgerFile(path, lock_seconds=60).add(
                        seen("shared", f"own{number}", source=f"/dags/{number}-{at}.py")
                    )
                code = 0
            finally:
                os._exit(code)
        pids.append(pid)
    os.close(ready)
    os.close(go)
    assert [wait_bounded(pid) for pid in pids] == [0] * 6
    whole = LedgerFile(path).load()
    shared = whole.get("shared")
    assert shared is not None
    assert (shared.children, shared.files, shared.seconds, shared.bytes) == (120, 120, 60.0, 120 * 4096)
    assert [record.children for record in whole if record.name.startswith("own")] == [20] * 6
    assert (whole.children, len(whole.sources)) == (120, 120)
    assert beside(path) == {"ledger"}


@pytest.mark.parametrize("moment", ["os.fsync", "os.rename"])
def test_a_kill_in_the_middle_of_a_write_leaves_the_old_file_and_no_lock(path: Path, moment: str) -> None:
    LedgerFile(path).add(seen("old"))
    before = path.read_bytes()
    script = f"""
import os, signal
from frostfork import *
{moment} = lambda *a: os.kill(os.getpid(), signal.SIGKILL)
ledger = Ledger()
ledger.record(Observation([ModuleImport("new", None, 0, 0, 0, None)]))
LedgerFile({str(path)!r}).add(ledger)
"""
    done = subprocess.run([sys.executable, "-c", script], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == before
    assert beside(path) == {"ledger", ".ledger.new"}, "the kill came too early or too late"
    assert [record.name for record in LedgerFile(path, lock_seconds=0).add(seen("newer"))] == ["newer", "old"]
    assert beside(path) == {"ledger"}


def test_kills_at_any_moment_leave_a_whole_file(path: Path) -> None:
    LedgerFile(path).add(seen(*(f"m{number}" for number in range(3000))))
    for number in range(12):
        pid = os.fork()
        if pid == 0:
            while True:
                LedgerFile(path).add(seen("again"))
        # The child writes all the time: whatever it is doing then, it is doing it in the middle of something.
        end = time.monotonic() + 30
        size = path.stat().st_ino
        while path.stat().st_ino == size and time.monotonic() < end:
            pass
        for _ in range(number * 200):
            os.stat(path)
        os.kill(pid, signal.SIGKILL)
        assert wait_bounded(pid) == -signal.SIGKILL
        assert len(LedgerFile(path).load()) == 3001
    assert not [name for name in beside(path) if "aside" in name]


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))


def test_a_full_disk_loses_nothing_and_says_so_once(path: Path) -> None:
    LedgerFile(path).add(seen("old"))
    before = path.read_bytes()
    wide = seen(*(f"m{number}" for number in range(200)))

    def body() -> list[object]:
        limited()
        with pytest.raises(LedgerError) as caught:
            LedgerFile(path).add(wide)
        return [str(caught.value), isinstance(caught.value.__cause__, OSError)]

    message, has_cause = run_child(body, os.fork)
    assert message == f"the ledger {path} cannot be written: File too large"
    assert has_cause
    assert path.read_bytes() == before
    assert beside(path) == {"ledger"}
    assert len(LedgerFile(path).add(wide)) == 201


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_full_file_system_loses_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)], capture_output=True
    )
    if made.returncode != 0:
        pytest.skip("this container may not mount")
    try:
        path = folder / "ledger"
        LedgerFile(path).add(seen("old"))
        before = path.read_bytes()
        with pytest.raises(LedgerError, match="cannot be written: No space left on device"):
            LedgerFile(path).add(seen(*(f"m{number}" for number in range(2000))))
        assert path.read_bytes() == before
        assert beside(path) == {"ledger"}
    finally:
        subprocess.run(["umount", str(folder)], check=True, timeout=30)


def set_aside(path: Path, caplog: pytest.LogCaptureFixture, why: str) -> None:
    """The file is renamed with one warning that says why, and the next one takes its place."""
    caplog.clear()
    with caplog.at_level(logging.WARNING, "frostfork"):
        whole = LedgerFile(path).add(seen("new"))
    assert [record.name for record in whole] == ["new"]
    assert [record.getMessage() for record in caplog.records if why in record.getMessage()], caplog.text
    assert len(caplog.records) == 1
    assert (path.parent / "ledger.aside-1").exists() or (path.parent / "ledger.aside-1").is_symlink()
    assert [record.name for record in LedgerFile(path).load()] == ["new"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage",
        b"\x80\x04}.",
        to_bytes(seen("evil"))[:-1],
        to_bytes(seen("evil")).replace(b"evil", b"EVIL"),
    ],
)
def test_a_damaged_file_is_set_aside(path: Path, caplog: pytest.LogCaptureFixture, data: bytes) -> None:
    path.write_bytes(data)
    path.chmod(0o600)
    set_aside(path, caplog, "frostfork set aside the ledger")
    assert (path.parent / "ledger.aside-1").read_bytes() == data


def test_load_sets_aside_too(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_bytes(b"garbage")
    assert len(LedgerFile(path).load()) == 0
    assert beside(path) == {"ledger.aside-1"}
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_load_leaves_it_where_it_may_not_rename(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_bytes(b"garbage")
    (path.parent / ".ledger.lock").mkdir()
    assert len(LedgerFile(path).load()) == 0
    assert beside(path) == {"ledger"}
    assert "leaves it there" in caplog.text


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_not_trusted(
    path: Path, caplog: pytest.LogCaptureFixture, mode: int
) -> None:
    path.write_bytes(to_bytes(seen("evil")))
    path.chmod(mode)
    set_aside(path, caplog, "others may write it")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root")
def test_a_file_of_another_user_is_not_trusted(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_bytes(to_bytes(seen("evil")))
    path.chmod(0o600)
    os.chown(path, NOBODY, NOBODY)
    set_aside(path, caplog, f"belongs to user {NOBODY}")


def test_a_link_is_not_followed(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    target = path.parent / "target"
    target.write_bytes(to_bytes(seen("evil")))
    target.chmod(0o600)
    path.symlink_to(target)
    set_aside(path, caplog, "symbolic link")
    assert target.read_bytes() == to_bytes(seen("evil"))


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_left_alone_and_blocks_nobody(path: Path, make: Callable[[Path], None]) -> None:
    make(path)
    with pytest.raises(LedgerError, match="is no file"):
        LedgerFile(path).load()
    with pytest.raises(LedgerError, match="is no file"):
        LedgerFile(path).add(seen("new"))
    assert beside(path) == {"ledger"}


def test_only_so_many_are_kept_aside(path: Path) -> None:
    for number in range(12):
        path.write_bytes(b"garbage %d" % number)
        LedgerFile(path).load()
    assert len(beside(path)) == 9
    assert (path.parent / "ledger.aside-9").read_bytes() == b"garbage 11"


def test_a_lock_that_is_held_is_waited_for_no_longer_than_said(path: Path) -> None:
    LedgerFile(path).add(seen("old"))
    with open(path.parent / ".ledger.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        start = time.monotonic()
        with pytest.raises(LedgerError, match=r"locked by another process for 0\.2 s"):
            LedgerFile(path, lock_seconds=0.2).add(seen("new"))
        assert 0.2 <= time.monotonic() - start < 20
        assert len(LedgerFile(path).load()) == 1, "reading needs no lock"


def test_a_folder_that_is_not_there_is_an_error_of_ours(tmp_path: Path) -> None:
    file = LedgerFile(tmp_path / "missing" / "ledger")
    assert len(file.load()) == 0
    with pytest.raises(LedgerError, match="No such file or directory"):
        file.add(seen("new"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_loses_nothing(path: Path) -> None:
    LedgerFile(path).add(seen("old"))
    path.parent.chmod(0o500)
    try:
        with pytest.raises(LedgerError, match="Permission denied"):
            LedgerFile(path).add(seen("new"))
        assert [record.name for record in LedgerFile(path).load()] == ["old"]
    finally:
        path.parent.chmod(0o700)


def test_a_child_that_is_forked_under_the_lock_does_not_keep_it(path: Path) -> None:
    file = LedgerFile(path, lock_seconds=0)
    pid = None
    with file._locked():
        ready, go = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(go)
            os.read(ready, 1)
            os._exit(0)
        os.close(ready)
    file.add(seen("new"))
    os.close(go)
    assert wait_bounded(pid) == 0
