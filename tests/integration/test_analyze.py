# SPDX-License-Identifier: Apache-2.0
"""`frostfork analyze` over real files: what it says of them, and that nothing of one file reaches another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from frostfork.analyze import Analysis, Limits, Runner, Script, analyze, verify
from frostfork.preload import Ledger, codec
from tests.airflow.processor import install, site_environment

SETS_A_HANDLER = "from signal import SIG_IGN, SIGUSR1, signal\nsignal(SIGUSR1, SIG_IGN)\n"

pytest.importorskip("click")
pytest.importorskip("rich")


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text))
    return folder


def run(
    *arguments: object, code: int = 0, cwd: Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "frostfork", "analyze", "--no-airflow", *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=100, check=False, cwd=cwd, env={**os.environ, **env}
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def result(*arguments: object, **options: Any) -> dict[str, Any]:
    return json.loads(run("--json", *arguments, **options).stdout)


def sources(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {Path(source["path"]).stem: source for source in found["sources"]}


def test_each_file_has_its_imports_and_each_module_its_files(tmp_path: Path) -> None:
    folder = write(tmp_path / "jobs", a="import csv, wave", b="import csv\n", c="x = 1\n")
    found = result(folder, "--no-verify")
    modules = {module["name"]: module for module in found["modules"]}
    assert found["files"] == 3
    assert modules["csv"]["files"] == modules["csv"]["children"] == 2
    assert modules["csv"]["overlap"] == pytest.approx(2 / 3)
    assert modules["wave"]["files"] == 1
    assert modules["csv"]["preload"] is True
    assert modules["csv"]["bytes"] > 0
    assert sources(found)["c"]["modules"] == 0
    assert "csv" in found["configuration"]["airflow"]
    rows = {Path(path).stem: row["seconds"] for row in found["overlap"] for path in row["files"]}
    assert rows["c"] == {}
    assert rows["a"]["Python's standard library"] > 0


def test_what_a_canary_refuses_is_not_in_the_configuration(tmp_path: Path) -> None:
    site = site_environment(tmp_path / "site")
    install(tmp_path / "site", "ffa", {"ffa_good.py": "", "ffa_signal.py": SETS_A_HANDLER})
    folder = write(tmp_path / "jobs", a="import ffa_good, ffa_signal", b="import ffa_good, ffa_signal")
    found = result(folder, "--no-verify", **site)
    modules = {module["name"]: module for module in found["modules"]}
    assert modules["ffa_good"]["preload"] is True
    assert modules["ffa_signal"]["preload"] is False
    assert "SIGUSR1" in modules["ffa_signal"]["reason"]
    assert "ffa_good" in found["configuration"]["airflow"]
    assert "ffa_signal" not in found["configuration"]["airflow"]
    unasked = result(folder, "--no-verify", "--no-canary", **site)
    assert {module["name"]: module["preload"] for module in unasked["modules"]}["ffa_signal"] is True


def test_a_file_is_imported_as_a_script_would_be_but_for_its_main(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "jobs",
        main="""
            import os, sys
            import beside
            assert sys.argv == [os.path.abspath(__file__)], sys.argv
            assert sys.path[0] == os.path.dirname(sys.argv[0]), sys.path
            assert __name__ == "__mp_main__"
            assert sys.modules["__main__"].beside is beside
            if __name__ == "__main__":
                raise SystemExit("the guarded part ran")
        """,
        beside="",
    )
    assert sources(result(folder, "--no-verify"))["main"]["error"] == ""


def test_how_a_file_ends_is_told_and_stops_no_other(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "jobs",
        good="import csv",
        missing="import csv\nimport nowhere_to_be_found",
        syntax="def (",
        leaves="import sys; sys.exit('no')",
        leaves_well="import sys; sys.exit()",
        drops="import os; os._exit(7)",
        crashes="import os; os.abort()",
        faults="import ctypes; ctypes.string_at(0)",
        hangs="while True: pass",
        stubborn="import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: time.sleep(9)",
        big="x = bytearray(1 << 30)",
        loud="import os\nfor _ in range(20_000): os.write(1, b'x' * 4096); os.write(2, b'y' * 4096)",
        closes="import os; os.closerange(0, 4096)",
    )
    found = sources(result(folder, "--no-verify", "--timeout", 2, "--memory", 512))
    outcomes = {
        name: (source["outcome"], source["error"].partition(":")[0]) for name, source in found.items()
    }
    assert outcomes == {
        "good": ("ok", ""),
        "missing": ("failed", "ModuleNotFoundError"),
        "syntax": ("failed", "SyntaxError"),
        "leaves": ("failed", "SystemExit"),
        "leaves_well": ("ok", ""),
        "drops": ("failed", "it ended its process with 7"),
        "crashes": ("killed", "SIGABRT"),
        "faults": ("killed", "SIGSEGV"),
        "hangs": ("timed out", "not done after 2 s"),
        "stubborn": ("timed out", "not done after 2 s"),
        "big": ("failed", "MemoryError"),
        "loud": ("ok", ""),
        "closes": ("ok", ""),
    }
    assert found["missing"]["modules"] >= 1, "what it imported before it failed"


def test_nothing_of_one_file_reaches_another(tmp_path: Path) -> None:
    check = f"""
        import os, signal, sys, threading, wave
        assert not hasattr(wave, "touched") and "FROST" not in os.environ and threading.active_count() == 1
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
        assert os.getcwd() == {str(tmp_path)!r} and "/x" not in sys.path
        wave.touched = True
        os.environ["FROST"] = "1"
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        os.chdir("/usr")
        sys.path.append("/x")
        threading.Thread(target=threading.Event().wait).start()
    """
    folder = write(tmp_path / "jobs", **{f"job{at}": check for at in range(6)})
    found = result(folder, "--no-verify", cwd=tmp_path)
    assert {source["error"] for source in found["sources"]} == {""}


def test_what_a_file_starts_ends_with_it(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "jobs",
        child="import subprocess; subprocess.Popen(['sleep', '3601'])",
        daemon="import subprocess; subprocess.Popen(['setsid', 'sh', '-c', 'sleep 3601 & sleep 3601'])",
        forks="""
            import os
            for _ in range(3):
                if os.fork() == 0:
                    os.setsid()
                    if os.fork() == 0:
                        while True: pass
                    os._exit(0)
        """,
        both="import os\nif os.fork() == 0:\n    raise RuntimeError('in the child')",
    )
    found = sources(result(folder, "--no-verify", TMPDIR=str(tmp_path)))
    assert {source["outcome"] for source in found.values()} == {"ok"}
    # The template and all that it forks have its folder among their arguments.
    left = [
        each for each in psutil.process_iter(["cmdline"])
        if {"3601", str(tmp_path)} & {word.partition("/frostfork-")[0] for word in each.info["cmdline"] or []}
    ]  # fmt: skip
    assert not left


def slow_library(folder: Path) -> Path:
    """Modules whose imports take a time that no machine changes much."""
    write(folder, quick="import time; time.sleep(0.15)", broken="import slow\nraise RuntimeError('always')")
    write(
        folder / "slow",
        __init__="import time; time.sleep(0.2)\nimport slow.part",
        part="import time; time.sleep(0.2)",
    )
    write(folder / "slow", later="import time; time.sleep(0.2)")
    return folder


def examine(folder: Path, library: Path, *, share: bool) -> Analysis:
    scripts = [Script(str(path), str(folder)) for path in sorted(folder.glob("*.py"))]
    with Runner(Limits(30, 4 << 30, 8), None, {**os.environ, "PYTHONPATH": str(library)}) as runner:
        runner.prepare()
        return analyze(runner, scripts, lambda *_: None, share=share)


def test_sharing_what_files_begin_with_changes_no_sum(tmp_path: Path) -> None:
    """66 files: sharing pays from 64 on."""
    library = slow_library(tmp_path / "library")
    kinds = (
        "import slow",
        "import slow, quick\nimport slow.later",
        "import quick\nfrom slow import later",
        "import csv",
    )
    texts = {f"job{at:02}": f"{kinds[at % 4]}\nif __name__ == '__main__':\n    later()\n" for at in range(60)}
    texts |= {
        "fails": "import slow\nimport broken",
        "late": "import slow\nraise ValueError('after it')",
        "leaves": "import sys\nsys.exit(1)\nimport slow",
        "hidden": "import os\nos.environ['A'] = 'b'\nimport slow",
        "catches": "try:\n    import nowhere\nexcept ImportError:\n    pass\nimport slow",
        "shadows": "import sys\nsys.modules['slow'] = sys\nimport slow\nslow.path",
    }
    folder = write(tmp_path / "jobs", **texts)
    shared, plain = (examine(folder, library, share=share) for share in (True, False))
    assert sum(run.shared for run in shared.runs.values()) > 60
    assert not any(run.shared for run in plain.runs.values())
    assert {path: (run.outcome, run.error) for path, run in shared.runs.items()} == {
        path: (run.outcome, run.error) for path, run in plain.runs.items()
    }
    for path in plain.ledger.sources:
        assert shared.ledger.modules_of(path) == plain.ledger.modules_of(path), path
    for name in ("slow", "slow.part", "slow.later", "quick", "broken"):
        ours, theirs = shared.ledger.get(name), plain.ledger.get(name)
        assert ours is not None and theirs is not None
        assert (ours.children, ours.failures, ours.files) == (theirs.children, theirs.failures, theirs.files)
        # Counted once for all, or twice for each, it would be another number whatever else the machine does.
        assert ours.seconds == pytest.approx(theirs.seconds, rel=0.4), name
        assert ours.origins == theirs.origins
    seconds = [sum(run.import_seconds for run in each.runs.values()) for each in (shared, plain)]
    assert seconds[0] == pytest.approx(seconds[1], rel=0.4)


def test_a_module_of_the_users_own_is_not_taken_for_the_installed_one(tmp_path: Path) -> None:
    library = slow_library(tmp_path / "library")
    texts = {f"job{at:02}": "import slow\nassert slow.own" for at in range(64)}
    folder = write(tmp_path / "jobs", slow="own = True", **texts)
    found = examine(folder, library, share=True)
    assert {run.outcome for run in found.runs.values()} == {"ok"}
    record = found.ledger.get("slow")
    assert record is not None and record.origins == {str(folder / "slow.py")}


def test_the_estimate_is_what_files_saved_that_were_run_both_ways(tmp_path: Path) -> None:
    heavy = "import asyncio, unittest.mock, xml.dom.minidom, http.server, sqlite3, email.mime.text"
    folder = write(tmp_path / "jobs", a=heavy, b=heavy, c="import csv", d="")
    estimate = result(folder)["estimate"]
    assert estimate["verified_files"] == 4
    difference = estimate["plain_cpu_seconds"] - estimate["preloaded_cpu_seconds"]
    assert difference > 0.01, "what is imported in the parent is not imported in the children"
    assert estimate["saving_per_file"] == pytest.approx(difference, rel=0.1, abs=0.002)


@pytest.mark.parametrize("end", ["import os; os._exit(1)", "import os; os.abort()", "while True: pass"])
def test_a_plan_that_ends_its_parent_is_no_estimate(tmp_path: Path, end: str) -> None:
    library = write(tmp_path / "library", ends=end)
    folder = write(tmp_path / "jobs", a="import csv", b="")
    scripts = [Script(str(path), str(folder)) for path in sorted(folder.glob("*.py"))]
    with Runner(Limits(2, 4 << 30, 2), None, {**os.environ, "PYTHONPATH": str(library)}) as runner:
        runner.prepare()
        runner.begin([])
        assert verify(runner, scripts, ["ends"], lambda *_: None) == []
        pairs = verify(runner, scripts, ["csv"], lambda *_: None)
    assert [Path(pair.path).name for pair in pairs] == ["a.py", "b.py"]


def test_a_ledger_is_read_instead(tmp_path: Path) -> None:
    from frostfork.observe import ModuleImport, Observation

    known = Ledger()
    known.record(
        Observation([ModuleImport("json", json.__file__, 0.0, 0.5, 0.5, None, 4096, 4096)], complete=True),
        "d.py",
    )
    path = tmp_path / "ledger"
    path.write_bytes(codec.to_bytes(known))
    found = result("--ledger", path)
    assert found["sources"][0]["path"] == "d.py"
    assert found["estimate"]["saving"] == pytest.approx(0.5)
    assert "Read from a ledger" in found["notes"][0]
    path.write_bytes(b"nothing of the kind")
    assert "is no ledger" in run("--ledger", path, code=1).stderr
    assert path.read_bytes() == b"nothing of the kind", "who only asks sets nothing aside"
    assert "cannot be read" in run("--ledger", tmp_path / "absent", code=1).stderr
    os.mkfifo(tmp_path / "pipe")
    assert run("--ledger", tmp_path / "pipe", code=1).stderr == f"Error: {tmp_path / 'pipe'} is no file.\n"


def test_wrong_input_is_one_sentence(tmp_path: Path) -> None:
    assert "There is no file or folder" in run(tmp_path / "absent", code=2).stderr
    assert "There is no .py file in" in run(write(tmp_path / "empty"), code=1).stderr
    assert "Give one or more paths" in run(code=2).stderr
    assert "Give one or more paths" in run(tmp_path, "--ledger", tmp_path, code=2).stderr
    folder = write(tmp_path / "jobs", a="")
    for name in ("[x", "", "a,b"):
        assert f"--deny: {name!r} is no name of a module" in run(folder, "--deny", name, code=2).stderr
    message = run(folder, "--html", tmp_path / "absent" / "page.html", code=2).stderr
    assert "there is no folder" in message or "--html needs plotly" in message


def test_a_terminal_gets_tables_and_a_configuration(tmp_path: Path) -> None:
    folder = write(tmp_path / "jobs", a="import csv, re", b="import [wave")
    text = run(folder, "--deny", "re", "--min-files", 1).stdout
    for part in ("Modules", "Distributions", "Files", "Failed", "Not preloaded, and why", "denied by configuration",
                 "[frostfork]", "deny = re", "frostfork.PreloadPolicy("):  # fmt: skip
        assert part in text
    assert "Modules" not in run(folder, "--top", 0, "--no-verify").stdout


def test_the_python_configuration_runs(tmp_path: Path) -> None:
    import frostfork

    found = result(
        write(tmp_path / "jobs", a="import csv, xml.dom.minidom"), "--no-verify", "--deny", "sqlite3"
    )
    names: dict[str, Any] = {"frostfork": frostfork}
    exec(found["configuration"]["python"], names)
    assert {"csv", "xml"} <= set(names["policy"].approved)
    assert names["policy"].deny == ("sqlite3",)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_gives_what_is_known(tmp_path: Path, number: int) -> None:
    mark = tmp_path / "reached"
    folder = write(
        tmp_path / "jobs",
        a="import csv",
        z=f"import time\nopen({str(mark)!r}, 'w').close()\ntime.sleep(3602)",
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "frostfork", "analyze", "--no-airflow", "--jobs", "1", "--json", str(folder)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # nohup's children ignore it, rightly
    )  # fmt: skip
    end = time.monotonic() + 60
    while not mark.exists() and time.monotonic() < end and process.poll() is None:
        time.sleep(0.02)  # the only sign that a file gives from within
    process.send_signal(number)
    try:
        out, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait(30)
    assert process.returncode == 130, errors
    assert "Interrupted: this is what was known after 1 of 2 files." in errors
    found = json.loads(out)
    assert found["complete"] is False
    assert [Path(source["path"]).name for source in found["sources"]] == ["a.py"]


def test_a_kill_leaves_no_process(tmp_path: Path) -> None:
    mark = tmp_path / "reached"
    folder = write(
        tmp_path / "jobs",
        **{name: f"import time\nopen({str(mark)!r}, 'a').close()\ntime.sleep(3602)" for name in "abc"},
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "frostfork", "analyze", "--no-airflow", "--jobs", "1", str(folder)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    end = time.monotonic() + 60
    while not mark.exists() and time.monotonic() < end and process.poll() is None:
        time.sleep(0.02)
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 3  # the template, a keeper, a runner
    process.kill()
    process.wait(30)
    _, alive = psutil.wait_procs(family, timeout=20)
    for left in alive:
        left.kill()
    assert not alive


def test_a_pipe_among_the_files_blocks_nobody(tmp_path: Path) -> None:
    folder = write(tmp_path / "jobs", a="import csv")
    os.mkfifo(folder / "pipe.py")
    assert result(folder, "--no-verify")["files"] == 1


@pytest.mark.parametrize("option", ["--timeout=inf", "--timeout=nan", "--memory=99999999999999999"])
def test_a_limit_that_is_none(tmp_path: Path, option: str) -> None:
    assert option[2:].partition("=")[0] in run(write(tmp_path / "jobs", a=""), option, code=2).stderr


def test_a_page_that_cannot_be_written_does_not_cost_the_result(tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    # /proc takes files of nobody.
    done = run(
        write(tmp_path / "jobs", a="import csv"), "--no-verify", "--json", "--html", "/proc/page", code=1
    )
    assert "/proc/page cannot be written" in done.stderr
    assert json.loads(done.stdout)["files"] == 1
