# SPDX-License-Identifier: Apache-2.0
"""A warmed process, and a frozen child, leave behind at their normal end what a plain one leaves behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

WORK = Path(__file__).with_name("exit_work.py")


def left_behind(how: str, folder: Path) -> tuple[str, dict[str, str]]:
    """What the process and its children printed, and the files they wrote."""
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, str(WORK), how, str(folder)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout, {path.name: path.read_text() for path in folder.iterdir()}


def test_same_output_and_files_as_a_plain_process(tmp_path: Path) -> None:
    plain, warmed = (left_behind(how, tmp_path / how) for how in ("plain", "warmed"))
    assert warmed == plain
    assert plain[0].endswith("end\nat exit: 1000\nfinalized\n")
    assert len(plain[1]) > 10
    assert all("kept" in text for text in plain[1].values()), plain[1]


@pytest.mark.parametrize("how", ["fork", "install"])
def test_child_that_ends_normally_writes_out_its_files(how: str, tmp_path: Path) -> None:
    script = f"""
import os, sys, frostfork
def cycle(): return held
frostfork.install() if {how == "install"} else None
pid = (os.fork if {how == "install"} else frostfork.fork)()
if pid == 0:
    held = [open(sys.argv[1], "w")]
    held[0].write("kept")
    sys.exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-c", script, str(out)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "0\n"
    assert out.read_text() == "kept"


def test_journal_left_open_at_the_end_of_a_warmed_process_says_nothing() -> None:
    script = (
        "import frostfork; journal = frostfork.Journal(); frostfork.warmup(); print(journal.fileno() > 2)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert (done.stdout, done.stderr) == ("True\n", "")
