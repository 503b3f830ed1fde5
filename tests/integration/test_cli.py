# SPDX-License-Identifier: Apache-2.0
"""The command line as its users meet it: in a process of its own."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("click")
pytest.importorskip("rich")


def run(*arguments: str, code: int = 0, **options: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "frostfork", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_help_names_every_command_and_version_is_the_packages() -> None:
    text = run("--help").stdout
    for command in ("airflow", "demo", "doctor"):
        assert f"  {command} " in text
        assert run(command, "--help").stdout.startswith("Usage:")
    assert run("--version").stdout.startswith("frostfork, version ")


def test_a_wrong_command_or_option_is_one_sentence() -> None:
    assert "No such command 'thaw'" in run("thaw", code=2).stderr
    assert "No such option '--colour'" in run("doctor", "--colour", code=2).stderr.replace(
        ": --colour", " '--colour'"
    )


def test_doctor_says_what_each_feature_means() -> None:
    findings = json.loads(run("doctor", "--json").stdout)
    assert {finding["area"] for finding in findings} == {"kernel", "interpreter", "container"}
    assert all(finding["consequence"] for finding in findings)
    found = {finding["feature"]: finding for finding in findings}
    assert found["CPython"]["found"] == ".".join(map(str, sys.version_info[:3]))
    assert found["immortal objects"]["ok"] == (sys.version_info >= (3, 12))
    assert found["frame numbers"]["ok"] == found["CAP_SYS_ADMIN"]["ok"]
    ksm = Path("/sys/kernel/mm/ksm/run")
    assert (found["KSM"]["found"] in ("running", "refused")) == (
        ksm.exists() and ksm.read_text().strip() == "1"
    )
    assert found["transparent huge pages"]["ok"] == (
        found["transparent huge pages"]["found"] in ("always", "madvise")
    )
    if platform.libc_ver()[0] == "glibc" and "LD_PRELOAD" not in os.environ:
        assert found["malloc"]["found"] == "glibc"
        assert found["malloc"]["ok"]
    table = run("doctor").stdout
    assert all(feature in table for feature in found)


AS_SOMEBODY = """
    import os, sys
    from frostfork.cli.doctor import examine
    examine()  # imports all that it needs: the interpreter may lie where only root reads
    os.setgid(54321)
    os.setuid(54321)
    print([(finding.feature, finding.ok) for finding in examine() if finding.feature in ("pagemap", "frame numbers")])
"""


@pytest.mark.root
def test_doctor_as_an_ordinary_user() -> None:
    if os.getuid() != 0:
        pytest.skip("becoming another user needs root")
    code = "\n".join(line.strip() for line in AS_SOMEBODY.splitlines())
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    # A change of uid makes a process undumpable, so even its own pagemap is refused.
    assert done.stdout == "[('pagemap', False), ('frame numbers', False)]\n"


def test_airflow_missing_is_one_sentence() -> None:

    script = (
        "import importlib.util as u, sys; find = u.find_spec;"
        "u.find_spec = lambda name, *a: None if name == 'airflow' else find(name, *a);"
        "sys.argv = ['frostfork', 'airflow', 'dag-processor'];"
        "from frostfork.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == "Error: Airflow is not installed here: pip install 'frostfork[airflow]'\n"
