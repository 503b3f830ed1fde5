# SPDX-License-Identifier: Apache-2.0
"""Zygotes that begin: the first, those that replace it, and those that fail to."""

from __future__ import annotations

import os
import select
import threading
import time
from pathlib import Path

import psutil
import pytest

from frostfork import Zygote, ZygoteError
from tests.conftest import open_descriptors
from tests.integration import zygote_work as work
from tests.integration.zygote_work import SECONDS


def test_replacement_begins_anew_and_the_old_zygote_goes_with_its_workers(zygote: Zygote) -> None:
    old = os.pidfd_open(zygote.pid)
    first = zygote.fork("signal:pause")
    zygote.call("echo", 0)
    assert zygote.replace() == zygote.generation == 2
    second = zygote.fork("signal:pause")
    assert (first.generation, second.generation) == (1, 2)
    seen = zygote.call("look")
    assert seen == [("begin", zygote.pid, 1), ("before_fork", "")]
    assert select.select([old], [], [], 0.05)[0] == []
    first.kill()
    assert first.wait(SECONDS).code == -9
    assert select.select([old], [], [], SECONDS)[0] == [old]
    os.close(old)
    assert second.poll() is None


@pytest.mark.parametrize(
    ("fail", "said"),
    [
        ("raise", "the preload is broken"),
        ("explain", "the preload is broken\nfor more"),
        ("exit", "the template left"),
        ("die", "ended before it was ready"),
    ],
)
@pytest.mark.parametrize("start", ["fork", "exec"])
def test_start_that_fails_leaves_nothing(start: str, fail: str, said: str) -> None:
    zygote = Zygote(work.Recorder(fail), start=start)
    with pytest.raises(ZygoteError, match=said):
        zygote.start()
    with pytest.raises(ZygoteError):
        zygote.fork("os:getpid")
    zygote.close()


def test_start_that_takes_too_long() -> None:
    with pytest.raises(ZygoteError, match="not ready in time"):
        Zygote(work.Recorder("hang"), ready_timeout=0.5).start()


class FailsLater(work.Recorder):
    """Begins well as long as a file is not there."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def begin(self) -> None:
        self.fail = Path(self.path).read_text() if os.path.exists(self.path) else ""
        super().begin()


@pytest.mark.parametrize("fail", ["raise", "exit", "die", "hang"])
def test_replacement_that_fails_leaves_the_old_zygote_in_charge(tmp_path: Path, fail: str) -> None:
    path = tmp_path / "fail"
    with Zygote(FailsLater(str(path))) as zygote:
        worker = zygote.fork("signal:pause")
        pid = zygote.pid
        path.write_text(fail)
        with pytest.raises(ZygoteError):
            zygote.replace(timeout=0.5 if fail == "hang" else None)
        assert (zygote.pid, zygote.generation, zygote.alive) == (pid, 1, True)
        assert worker.poll() is None
        assert zygote.fork(work.code, (6,)).wait(SECONDS).code == 6
        path.unlink()
        assert zygote.replace() == 2
        assert zygote.fork(work.code, (7,)).wait(SECONDS).code == 7


def test_nothing_is_kept_of_a_zygote_that_was_replaced(zygote: Zygote) -> None:
    before = len(open_descriptors())
    worker = zygote.fork("signal:pause")
    zygote.replace()
    worker.kill()
    worker.wait(SECONDS)
    del worker
    end = time.monotonic() + SECONDS
    while zygote.alive and len(open_descriptors()) > before and time.monotonic() < end:
        time.sleep(0.005)
    assert len(open_descriptors()) == before


def test_forks_go_on_while_a_replacement_begins(tmp_path: Path) -> None:
    path = tmp_path / "fail"
    with Zygote(FailsLater(str(path))) as zygote:
        path.write_text("hang")
        failures: list[ZygoteError] = []

        def replace() -> None:
            try:
                zygote.replace(timeout=1.5)
            except ZygoteError as error:
                failures.append(error)

        thread = threading.Thread(target=replace)
        thread.start()
        assert zygote.fork(work.code, (6,)).wait(SECONDS).code == 6
        assert thread.is_alive()
        thread.join(SECONDS)
        assert len(failures) == 1


def test_close_does_not_wait_for_a_replacement_that_hangs(tmp_path: Path) -> None:
    path = tmp_path / "fail"
    zygote = Zygote(FailsLater(str(path))).start()
    path.write_text("hang")
    failures: list[BaseException] = []

    def replace() -> None:
        try:
            zygote.replace()
        except ZygoteError as error:
            failures.append(error)

    thread = threading.Thread(target=replace)
    thread.start()
    (root,) = psutil.Process().children()
    while len(root.children()) < 2:
        assert thread.is_alive()
    began = time.monotonic()
    zygote.close()
    assert time.monotonic() - began < 20
    thread.join(SECONDS)
    assert len(failures) == 1
