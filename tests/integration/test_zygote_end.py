# SPDX-License-Identifier: Apache-2.0
"""How a Zygote ends: closed, dropped, with the interpreter, and what a fork of its owner may do."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest

from frostfork import Zygote, ZygoteError
from tests.integration import zygote_work as work
from tests.integration.zygote_work import SECONDS


def test_close_ends_what_runs_and_tells_how() -> None:
    zygote = Zygote().start()
    worker = zygote.fork("signal:pause")
    zygote.close()
    zygote.close()
    assert worker.wait(0).code == -9
    assert not zygote.alive
    for call in (zygote.start, zygote.replace, lambda: zygote.fork("os:getpid"), lambda: zygote.pid):
        with pytest.raises(ZygoteError, match="closed"):
            call()


@pytest.mark.parametrize("start", ["fork", "exec"])
def test_a_zygote_that_is_closed_leaves_no_folder_and_loses_no_text(tmp_path: Path, start: str) -> None:
    with Zygote(work.Holder(str(tmp_path)), start=start) as zygote:
        assert zygote.fork("os:getpid").wait(SECONDS).code is not None
        assert len(list(tmp_path.iterdir())) == 2
        zygote.replace()
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("unwritten", "written once")]


def test_a_finalizer_that_hangs_is_not_waited_for_long(tmp_path: Path) -> None:
    zygote = Zygote(work.Holder(str(tmp_path), hang=True)).start()
    pid, start = zygote.pid, time.monotonic()
    zygote.close(0.0)
    assert time.monotonic() - start < 5 and not psutil.pid_exists(pid)


def test_close_drains_as_long_as_it_may() -> None:
    for patience, expected in ((SECONDS, 5), (0.2, -9)):
        zygote = Zygote().start()
        reader, writer = os.pipe()
        worker = zygote.fork(work.wait_for_end, fds=[reader])
        os.close(reader)
        timer = threading.Timer(0.5 if expected == 5 else 1.5, os.close, [writer])
        timer.start()
        zygote.close(patience, drain=True)
        assert worker.wait(0).code == expected
        timer.join()


def test_a_fork_of_the_owner_cannot_use_it() -> None:
    from tests.integration.forking import run_child

    with Zygote() as zygote:
        worker = zygote.fork("signal:pause")

        def body() -> list[str]:
            said = []
            for use in (
                lambda: zygote.fork("os:getpid"),
                lambda: zygote.call("echo"),
                lambda: zygote.pid,
                lambda: zygote.alive,
                zygote.replace,
                zygote.close,
                zygote.start,
                lambda: worker.wait(1),
                worker.kill,
            ):
                try:
                    use()
                    said.append("nothing")
                except ZygoteError as error:
                    said.append(str(error))
            with Zygote() as own:
                said.append(str(own.fork(work.code, (3,)).wait(SECONDS).code))
            return said

        *said, code = run_child(body, os.fork)
        assert all(str(os.getpid()) in each for each in said), said
        assert code == "3"
        assert worker.poll() is None
        assert zygote.fork(work.code, (3,)).wait(SECONDS).code == 3


def test_dropped_without_close_it_warns_and_ends() -> None:
    zygote = Zygote().start()
    worker = zygote.fork("signal:pause")
    with pytest.warns(ResourceWarning, match="unclosed <Zygote"):
        del zygote
        gc.collect()
    assert worker.wait(SECONDS).code == -9


def run_program(text: str, tmp_path: Path, *, module: bool = False) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(text))
    command = ["-m", "program"] if module else [str(path)]
    return subprocess.run(
        [sys.executable, "-W", "error", *command],
        capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path,
    )  # fmt: skip


PROGRAM = """
    import os, sys
    from frostfork import Zygote
    print("main", __name__, flush=True)

    def target(number):
        print("target in", __name__, sys.argv[0] == {argv!r}, flush=True)
        return number

    if __name__ == "__main__":
        with Zygote(start={start!r}) as zygote:
            print(zygote.fork(target, (8,)).wait(30).code, flush=True)
            print(zygote.replace(), zygote.fork(target, (9,)).wait(30).code)
"""


@pytest.mark.parametrize("module", [False, True])
@pytest.mark.parametrize("start", ["fork", "exec"])
def test_target_from_the_main_module(tmp_path: Path, start: str, module: bool) -> None:
    done = run_program(
        PROGRAM.format(start=start, argv=str(tmp_path / "program.py")), tmp_path, module=module
    )
    assert done.stderr == ""
    name, main = ("__main__", "") if start == "fork" else ("__mp_main__", "main __mp_main__\n")
    expected = f"main __main__\n{main}target in {name} True\n8\n{main}target in {name} True\n2 9\n"
    assert done.stdout == expected


def test_interpreter_that_ends_with_workers_alive(tmp_path: Path) -> None:
    done = run_program(
        """
        from frostfork import Zygote
        zygote = Zygote().start()
        worker = zygote.fork("signal:pause")
        print(worker.pid, zygote.pid, flush=True)
        """,
        tmp_path,
    )
    assert done.returncode == 0
    assert done.stderr == ""
    for pid in map(int, done.stdout.split()):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
