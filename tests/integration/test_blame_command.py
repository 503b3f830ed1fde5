# SPDX-License-Identifier: Apache-2.0
"""`frostfork blame -- CMD` as its users meet it: over real programs, in every way that a program can be named."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("click")
pytest.importorskip("rich")


def run(
    *arguments: str, code: int = 0, cwd: Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "frostfork", "blame", *arguments],
        capture_output=True, text=True, timeout=60, check=False, cwd=cwd, env={**os.environ, **env},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done


def judge(*arguments: str, code: int = 0, cwd: Path | None = None, **env: str) -> dict[str, Any]:
    return json.loads(run("--json", *arguments, code=code, cwd=cwd, **env).stdout)


def program(folder: Path, text: str) -> str:
    path = folder / "program.py"
    path.write_text(textwrap.dedent(text))
    return str(path)


# Every way in which Python code ends a child.
ENDS = """
    import atexit, multiprocessing, os, signal, sys
    buffer = bytearray(50 * 4096)
    def write(*ignored):
        for i in range(0, len(buffer), 4096):
            buffer[i] = 1
    if __name__ == "__main__":
        print("the program's own output", sys.argv[1:])
        fork = multiprocessing.get_context("fork")
        process = fork.Process(target=write)
        process.start()
        process.join()
        with fork.Pool(1) as pool:
            pool.map(write, [1])
            pool.close()
            pool.join()  # the end of the block would kill its worker, at its report perhaps
        for end in (lambda: os._exit(0), lambda: sys.exit(0), lambda: os.execlp("true", "true"),
                    lambda: signal.raise_signal(signal.SIGKILL)):
            pid = os.fork()
            if pid == 0:
                write()
                end()
            print(os.waitpid(pid, 0)[1])
        sys.exit(3)
"""


def test_children_are_judged_however_they_end(tmp_path: Path) -> None:
    done = run("--json", "--", program(tmp_path, ENDS), "--json", "word", code=3)
    found = json.loads(done.stdout)
    assert (found["exit_code"], found["children"], found["silent"], found["processes"]) == (3, 6, 1, 5)
    assert found["blind"] == {}
    written = [
        owner for owner in found["owners"] if owner["name"] == "bytearray" and owner["cause"] == "tables"
    ]
    assert [owner["bytes"] for owner in written] == [5 * 50]
    assert found["unshared"] == sum(share["pages"] for share in found["causes"].values())
    # The exit codes of the four are what they would be otherwise.
    assert done.stderr.splitlines() == [
        "the program's own output ['--json', 'word']", "0", "0", "0", str(int(signal.SIGKILL))
    ]  # fmt: skip


def test_the_table_leaves_the_programs_output_alone(tmp_path: Path) -> None:
    done = run("--", program(tmp_path, ENDS), code=3)
    assert done.stdout.splitlines()[0] == "the program's own output []"
    assert len(done.stdout.splitlines()) == 5
    text = " ".join(done.stderr.split())
    assert "5 of 6 children judged" in text
    assert "1 of 6 children gave no report: killed, or still running" in text
    assert "the floor is" in text
    assert "reference counts" in text


NESTED = """
    import os
    pid = os.fork()
    if pid == 0:
        inner = os.fork()
        if inner == 0:
            os._exit(0)
        os.waitpid(-1, 0)
        os._exit(0)
    os.waitpid(pid, 0)
"""


def test_children_of_children_are_judged(tmp_path: Path) -> None:
    found = judge(program(tmp_path, NESTED))
    assert (found["children"], found["processes"]) == (2, 2)


WHERE = "import os, sys; print(sys.argv, __name__, repr(sys.path[0]), sys.flags.dev_mode)"


def test_a_program_runs_as_the_interpreter_would_run_it(tmp_path: Path) -> None:
    """Script, module, code, folder and interpreter with options: the same words, path and flags as without us."""
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__main__.py").write_text(WHERE)
    (tmp_path / "alone.py").write_text(WHERE)
    for words in (
        ["alone.py", "a", "--top"], ["-m", "alone", "a"], ["-m", "package"], ["-c", WHERE, "-x"], ["package", "a"],
        ["-X", "dev", "alone.py"], ["-Xdev", "-malone"],
    ):  # fmt: skip
        plain = subprocess.run(
            [sys.executable, *words], capture_output=True, text=True, timeout=60, check=True, cwd=tmp_path
        )
        ours = run("--", sys.executable, *words, cwd=tmp_path)
        assert ours.stdout == plain.stdout
        assert "forked no child" in ours.stderr
        if words[0][:2] != "-X":
            assert run("--", *words, cwd=tmp_path).stdout == plain.stdout


def test_a_console_script_is_found_on_path(tmp_path: Path) -> None:
    script = tmp_path / "made-here"
    script.write_text(f"#!{sys.executable}\n" + textwrap.dedent(NESTED))
    script.chmod(0o755)
    assert judge("made-here", PATH=f"{tmp_path}:{os.environ['PATH']}")["processes"] == 2


def test_the_exit_is_the_programs(tmp_path: Path) -> None:
    assert "Traceback" in run("-c", "raise KeyError", code=1).stderr
    assert judge("-c", "import os; os._exit(9)", code=9)["exit_code"] == 9
    killed = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert judge("-c", killed, code=137)["children"] == 0


def test_a_request_to_end_is_passed_on(tmp_path: Path) -> None:
    waiting = "import signal; print('ready', flush=True); signal.pause()"
    process = subprocess.Popen(
        [sys.executable, "-m", "frostfork", "blame", "-c", waiting], stdout=subprocess.PIPE, text=True,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM


def test_an_undumpable_child_is_said_to_be(tmp_path: Path) -> None:
    text = """
        import ctypes, os
        if os.getuid() == 0:  # root sees undumpable processes
            os.setgid(54321)
            os.setuid(54321)
        ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    """
    found = judge(program(tmp_path, text))
    assert found["children"] == 1
    assert found["blind"] == {"Permission denied": 1}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "Missing argument"),
        (["nowhere.py"], "There is no file nowhere.py."),
        (["python3", "nowhere.py"], "There is no file nowhere.py."),
        (["no-such-command"], "There is no no-such-command on PATH"),
        (["/bin/true"], "is not a Python program"),
        (["python3"], "name a script, -m or -c"),
        (["-m"], "-m needs an argument"),
        (["--", "--thing"], "--thing is no option of frostfork blame"),
        (["--top", "-5", "true"], "Invalid value for '--top'"),
    ],
)
def test_wrong_input_is_one_sentence(words: list[str], sentence: str) -> None:
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = run(*words, code=2 if words[:1] in ([], ["--top"]) else 1, **environment)
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


NAMED = """
    import os
    classes = [type(name, (), {"__slots__": "value"}) for name in ("[/red]", "[bold]")]
    things = [made() for made in classes for _ in range(2000)]
    pid = os.fork()
    if pid == 0:
        for thing in things:
            thing.value = 1.5
        os._exit(0)
    os.waitpid(pid, 0)
"""


def test_a_name_in_brackets_is_no_markup(tmp_path: Path) -> None:
    done = run("--top", "1000", "--", program(tmp_path, NAMED))
    assert "__main__.[/red]" in done.stderr
    assert "__main__.[bold]" in done.stderr


def test_a_reason_in_brackets_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    from frostfork.blame import BlameReport
    from frostfork.cli.blame_command import _Outcome, _show

    _show(_Outcome(0, 1, 0, {"[/red]": 1}, BlameReport()), 1)
    assert "1 of 1 children could not be judged: [/red]\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("#!/bin/sh\n'''exec'\n", "is not a Python program"),
        ("#!FOLDER/python3\n", "FOLDER/python3 cannot be run: Exec format error."),
    ],
)
def test_a_script_that_cannot_be_judged_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    interpreter = tmp_path / "python3"
    interpreter.write_bytes(b"\0")
    interpreter.chmod(0o755)
    script = tmp_path / "script"
    script.write_text(text.replace("FOLDER", str(tmp_path)))
    script.chmod(0o755)
    done = run(str(script), code=1)
    assert sentence.replace("FOLDER", str(tmp_path)) in done.stderr
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1


def test_a_script_that_cannot_be_read_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from frostfork.cli.program import find_program
    from frostfork.errors import ConfigurationError

    tmp_path.chmod(0o755)
    (tmp_path / "script").write_text("#!/usr/bin/python3\n")
    (tmp_path / "script").chmod(0o311)
    monkeypatch.chdir(tmp_path)
    before = os.geteuid()
    os.seteuid(before or 65534)  # root reads everything
    try:
        with pytest.raises(ConfigurationError, match="script cannot be read: Permission denied"):
            find_program(["./script"])
    finally:
        os.seteuid(before)
