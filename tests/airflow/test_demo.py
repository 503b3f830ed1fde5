# SPDX-License-Identifier: Apache-2.0
"""`frostfork demo` as a user starts it: the command, its real runs, its exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from frostfork.airflow.measure.runs import Setting
from frostfork.airflow.measure.summary import FIGURES

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(300)]
pytest.importorskip("airflow")
corpus = pytest.importorskip("frostfork._corpus.generate", reason="the generator comes with a wheel")

COMMAND = [sys.executable, "-c", "from frostfork.cli import main; main()", "demo"]


def _demo(scratch: Path, *arguments: str, seconds: float = 280) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TMPDIR": str(scratch), "COLUMNS": "160"}
    done = subprocess.run(
        [*COMMAND, *arguments], env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )
    print(done.stderr[-4000:])
    return done


def test_both_variants_parse_every_file(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    files = corpus.generate(tmp_path / "dags", files=12)
    done = _demo(scratch, "--dags", str(tmp_path / "dags"), "--rounds", "1", "--json")
    assert done.returncode == 0
    result = json.loads(done.stdout)
    kinds = {file.kind for file in files}
    for variant in ("stock", "frostfork"):
        part = result[variant]
        assert part["files"] == 12
        assert part["unparsed"] == []
        assert part["notes"] == []
        assert set(part["kinds"]) == kinds
        assert all(part[name] > 0 for name in FIGURES), part
        for kind in kinds:
            assert 0 < part["kinds"][kind]["child_seconds"] < part["kinds"][kind]["seconds_per_file"]
    assert result["stock"]["dags"] == result["frostfork"]["dags"] == 108  # three files end without one
    assert set(FIGURES) <= set(result["ratio"])
    assert set(result["ratio"]["kinds"]) == kinds
    assert (result["files"], result["rounds"]) == (12, 1)
    assert "pandas" in result["preload"]["preloaded"]
    steps = [step for warmup in result["warmups"] for step in warmup.values()]
    assert {"compact_code", "drain_heap"} <= {step["name"] for step in steps if step["status"] == "done"}
    assert result["environment"]["airflow"]
    assert result["environment"]["zygote"] is True
    # A parse of pandas that does not import pandas is a difference that no noise hides.
    pandas = result["ratio"]["kinds"]["pandas"]
    assert pandas["page_faults"] < 0.8
    # Memory is sampled: of a single kind a busy machine may meet no child.
    assert result["ratio"]["private_bytes"] < 1.0
    # How many rounds there are is told once, when nothing is left to learn.
    assert len(set(re.findall(r"^frostfork: round \d+ (of \d+)", done.stderr, re.MULTILINE))) == 1
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(("zygote", "wanted"), [(None, None), (True, "True"), (False, "False")])
def test_the_zygote_is_switched_for_the_run(tmp_path: Path, zygote: bool | None, wanted: str | None) -> None:
    setting = Setting(tmp_path, 1, 2, tmp_path, zygote)
    assert setting.environment("frostfork").get("AIRFLOW__FROSTFORK__ZYGOTE") == wanted


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--dags", "no-such-folder"], "no-such-folder"),
        (["--dags", "empty"], "holds no .py file"),
        (["--dags", "empty", "--rounds", "0"], "--rounds"),
        (["--dags", "empty", "--processes", "0"], "--processes"),
    ],
)
def test_wrong_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    done = _demo(tmp_path, *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_without_dags(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "tool.py").write_text("print('nothing to schedule')\n")
    done = _demo(scratch, "--dags", str(tmp_path / "dags"), "--rounds", "1")
    assert done.returncode == 2
    assert "found no DAG file" in done.stderr
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    corpus.generate(tmp_path / "dags", files=11)
    environment = {**os.environ, "TMPDIR": str(scratch)}
    demo = subprocess.Popen(
        [*COMMAND, "--dags", str(tmp_path / "dags"), "--rounds", "50"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        family: list[psutil.Process] = []
        assert demo.stderr is not None
        # The line that says that a round is done: the processor and its children are at work by then.
        for line in demo.stderr:
            if "round 1" in line:
                break
        else:
            pytest.fail("the demo ended before a round was done")
        family = psutil.Process(demo.pid).children(recursive=True)
        assert family
        demo.send_signal(number)
        demo.communicate(timeout=60)
        assert demo.returncode == 130
        _, alive = psutil.wait_procs(family, timeout=10)
        assert not alive
        assert list(scratch.iterdir()) == []
    finally:
        _end(demo, family)


def test_a_processor_that_dies_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    corpus.generate(tmp_path / "dags", files=11)
    # Airflow imports this module at the start of each of its processes; `db migrate` is to live.
    broken = tmp_path / "airflow_local_settings.py"
    broken.write_text(
        "import sys\nif 'dag-processor' in sys.argv or '--num-runs' in sys.argv:\n    sys.exit(3)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = _demo(scratch, "--dags", str(tmp_path / "dags"), "--rounds", "1")
    assert done.returncode == 1
    assert "DAG processor ended with 3" in done.stderr
    kept = list(scratch.iterdir())
    assert len(kept) == 1
    assert kept[0].suffix == ".log"
    assert str(kept[0]) in done.stderr.replace("\n", "")


def _end(demo: subprocess.Popen[str], family: list[psutil.Process]) -> None:
    """INT, then KILL, by pid, whatever a failed test has left."""
    if demo.poll() is None:
        demo.send_signal(signal.SIGINT)
        deadline = time.monotonic() + 30
        while demo.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        demo.kill()
        demo.wait()
    for process in family:
        if process.is_running():
            process.kill()
    for stream in (demo.stdout, demo.stderr):
        if stream is not None:
            stream.close()
