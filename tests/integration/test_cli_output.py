# SPDX-License-Identifier: Apache-2.0
"""The command line where it cannot write, cannot write everything, or is ended before it has begun."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("click")
pytest.importorskip("rich")

FROSTFORK = [sys.executable, "-m", "frostfork"]
FORKS = "import os; os.fork() or os._exit(0); os.wait(); open('ran', 'w')"


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    """A folder of one file to analyze."""
    folder = tmp_path / "jobs"
    folder.mkdir()
    (folder / "a.py").write_text("import csv\n")
    return folder


def words(command: str, jobs: Path) -> list[str]:
    known = {"JOBS": str(jobs), "FORKS": FORKS}
    return [known.get(word, word) for word in command.split()]


COMMANDS = [
    "doctor",
    "doctor --json",
    "analyze --no-airflow --no-verify JOBS",
    "analyze --no-airflow --no-verify --json JOBS",
    "blame --json -c FORKS",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_standard_output_is_one_sentence(command: str, jobs: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*FROSTFORK, *words(command, jobs)],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False, cwd=jobs.parent,
        )  # fmt: skip
    last = done.stderr.splitlines()[-1]
    assert last == "Error: standard output cannot be written: No space left on device."
    assert "Traceback" not in done.stderr
    assert done.returncode == 1


@pytest.mark.parametrize("command", [*COMMANDS, "blame -c FORKS"])
def test_a_closed_standard_output_is_one_sentence_before_anything_runs(command: str, jobs: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *FROSTFORK, *words(command, jobs)],
        stderr=subprocess.PIPE, text=True, timeout=60, check=False, cwd=jobs.parent,
    )  # fmt: skip
    assert done.stderr == "Error: standard output cannot be written: it is closed.\n"
    assert done.returncode == 1
    assert not (jobs.parent / "ran").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_pipe_that_nobody_reads_is_no_error(command: str, jobs: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [*FROSTFORK, *words(command, jobs)],
            stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60, check=False, cwd=jobs.parent,
        )  # fmt: skip
    finally:
        os.close(writer)
    assert "Error" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_page_that_does_not_fit_leaves_the_earlier_one(jobs: Path) -> None:
    pytest.importorskip("plotly")
    page = jobs.parent / "page.html"
    page.write_text("the earlier one")
    page.chmod(0o640)
    command = [*FROSTFORK, "analyze", "--no-airflow", "--no-verify", "--no-canary", "--html", page, jobs]

    def run(most: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)),
        )  # fmt: skip

    done = run(1 << 20)
    assert f"Error: {page} cannot be written: File too large." in done.stderr
    assert done.returncode == 1
    assert page.read_text() == "the earlier one"
    assert run(resource.RLIM_INFINITY).returncode == 0
    assert "<html" in page.read_text()
    assert stat.S_IMODE(page.stat().st_mode) == 0o640
    assert sorted(path.name for path in jobs.parent.iterdir()) == ["jobs", "page.html"]
