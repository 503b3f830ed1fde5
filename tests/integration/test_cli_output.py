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


@pytest.mark.parametrize(
    "environment",
    [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"PYTHONIOENCODING": "latin-1"}],
)
def test_a_standard_output_without_unicode_shows_the_table(environment: dict[str, str]) -> None:
    done = subprocess.run(
        [*FROSTFORK, "doctor"],
        capture_output=True, timeout=60, check=False, env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    assert b"transparent huge pages" in done.stdout


def without(module: str, raised: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line where importing this module raises."""
    script = f"""if True:
        import sys
        class Finder:
            def find_spec(self, name, path=None, target=None):
                if name == {module!r}:
                    raise {raised}
        sys.meta_path.insert(0, Finder())
        sys.argv = ["frostfork", *{arguments!r}]
        from frostfork.cli import main
        main()
    """
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("module", ["click", "rich"])
def test_a_missing_library_is_one_sentence_before_anything_runs(module: str) -> None:
    raised = f"ModuleNotFoundError(name={module!r})"
    done = without(module, raised, "blame", "-c", "import os; os.fork() or os._exit(0); print('ran')")
    assert done.stderr == "frostfork's command line needs click and rich: pip install 'frostfork[cli]'\n"
    assert done.stdout == ""
    assert done.returncode == 1


@pytest.mark.parametrize("module", ["click", "rich", "frostfork.cli.doctor", "rich.console"])
def test_an_interrupt_of_any_import_is_one_word(module: str) -> None:
    done = without(module, "KeyboardInterrupt", "doctor")
    assert done.stderr.strip() == "Interrupted."
    assert done.returncode == 130
