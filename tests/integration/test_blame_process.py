# SPDX-License-Identifier: Apache-2.0
"""The witness as a process: whom it looks after, who meets it, and what may be seen without root."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable

import pytest

import frostfork
from frostfork import PAGE_SIZE, BlameReport, ObservationError
from tests.conftest import open_descriptors
from tests.integration.blaming import owned
from tests.integration.forking import run_child


def test_pages_that_the_parent_writes_are_not_the_childs() -> None:
    buffer = bytearray(100 * PAGE_SIZE)
    ready, go = os.pipe(), os.pipe()

    def judge() -> list[int]:
        with frostfork.blame() as report:
            os.write(ready[1], b".")
            os.read(go[0], 1)
        return list(owned(report, "tables", "bytearray"))

    pid_of_writer = os.fork()
    if pid_of_writer == 0:  # the parent's part is a process of its own: run_child waits in this one
        code = 1
        try:
            assert run_child(judge, lambda: _fork_and(lambda: _write_when_told(buffer, ready, go))) == [0, 0]
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid_of_writer, 0)[1]) == 0
    for fd in (*ready, *go):
        os.close(fd)


def _fork_and(then: Callable[[], None]) -> int:
    pid = frostfork.fork()
    if pid:
        then()
    return pid


def _write_when_told(buffer: bytearray, ready: tuple[int, int], go: tuple[int, int]) -> None:
    os.read(ready[0], 1)
    buffer[:] = b"x" * len(buffer)
    os.write(go[1], b".")


def test_the_child_meets_no_witness() -> None:
    def look() -> list[object]:
        before = open_descriptors()
        with frostfork.blame():
            same = open_descriptors() == before
            try:
                os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                alone = True
            else:
                alone = False
            pid = os.fork()
            if pid == 0:
                os._exit(7)
            first = os.wait() == (pid, 7 << 8)
        same = same and open_descriptors() == before
        with open(f"/proc/self/task/{os.getpid()}/children") as children:
            return [same, alone, first, children.read()]

    assert run_child(look, frostfork.fork) == [True, True, True, ""]


def test_a_blame_belongs_to_the_process_that_began_it() -> None:
    def pass_on() -> str:
        judge = frostfork.blame()
        judge.start()
        try:
            run_child(judge.finish, os.fork)
        except AssertionError as error:
            assert "ObservationError" in str(error)
        return judge.finish().to_json().decode()

    assert BlameReport.from_json(run_child(pass_on, frostfork.fork)).unshared > 0


def test_a_witness_that_was_killed_is_an_error() -> None:
    def kill() -> str:
        judge = frostfork.blame()
        judge.start()
        os.kill(judge._witness.pid, 9)
        with pytest.raises(ObservationError, match="gone"):
            judge.finish()
        with pytest.raises(ObservationError):
            judge.finish()
        judge.start()
        judge.cancel()
        with frostfork.blame() as report:  # and it can begin anew
            pass
        return repr(report)

    assert "of 1 processes" in run_child(kill, frostfork.fork)


def test_an_exception_of_the_block_passes() -> None:
    with pytest.raises(KeyError), frostfork.blame():
        raise KeyError("of the user's")


AS_SOMEBODY = """
    import ctypes, json, os, sys, frostfork
    buffer = bytearray(100 * 4096)
    if os.getuid() == 0:
        os.setgid(54321)
        os.setuid(54321)
    prctl = ctypes.CDLL(None).prctl
    prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE, which the change of uid has cleared
    for when in ("never", "after", "before"):
        sys.stdout.flush()
        pid = frostfork.fork()
        if pid == 0:
            if when == "before":
                prctl(4, 0, 0, 0, 0)
            try:
                with frostfork.blame() as report:
                    if when == "after":
                        prctl(4, 0, 0, 0, 0)
                    for i in range(0, len(buffer), 4096):
                        buffer[i] = 1
                print([owner[2:] for owner in report.owners if owner.name == "bytearray" and owner.cause == "tables"])
            except PermissionError as error:
                print(error.filename)
            sys.stdout.flush()
            os._exit(0)
        os.waitpid(pid, 0)
"""


def test_an_ordinary_user_sees_all_but_of_an_undumpable_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(AS_SOMEBODY)],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert lines[:2] in (["[(100, 100)]"] * 2, ["[(101, 100)]"] * 2, ["[(100, 100)]", "[(101, 100)]"])
    assert lines[2:] == ["/proc/self/pagemap"]
