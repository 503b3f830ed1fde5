# SPDX-License-Identifier: Apache-2.0
"""A canary meets the bad imports, says what they do, and its parent notices nothing."""

from __future__ import annotations

import logging
import math
import os
import select
import signal
import socket
import sys
import tempfile
import textwrap
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from frostfork import Canary, Finding, Verdict
from frostfork.preload.verdict import DESCRIPTIONS, ENDINGS, KINDS
from tests.integration import hostile
from tests.integration.fresh import run_fresh

WAIT = 60


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    logging.getLogger("tests.known")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    assert not [name for name in sys.modules if name.startswith("ffc_")]


def canary() -> Canary:
    return Canary(seconds=2, memory=200 << 20, processes=16, file_bytes=8 << 20)


def tried(*names: str, **options: object) -> dict[str, Verdict]:
    with canary().start(names, **options) as trial:
        verdicts = trial.wait(WAIT)
        assert trial.poll(), "it takes too long"
    return verdicts


@pytest.mark.parametrize("which", hostile.EFFECTS)
def test_each_effect_is_found_and_the_parent_is_as_before(modules: Path, which: str) -> None:
    body, words = hostile.EFFECTS[which]
    bad = hostile.write(modules, which, body)
    good = hostile.write(modules, "good", "")
    before = hostile.state()
    verdicts = tried(bad, good)
    assert hostile.state() == before
    kind = which.partition("-")[0]
    assert kind in KINDS
    found = [finding for finding in verdicts[bad].findings if finding.kind == kind]
    assert found, verdicts[bad]
    assert any(words in finding.detail for finding in found), found
    assert {finding.module for finding in found} == {bad}
    if which != "crashed-keeper":
        assert verdicts[good].passed


@pytest.mark.parametrize("which", hostile.HARMLESS)
def test_what_leaves_nothing_behind_passes(modules: Path, which: str) -> None:
    name = hostile.write(modules, which, hostile.HARMLESS[which])
    with Canary(memory=200 << 20).start([name]) as trial:
        assert trial.wait(WAIT)[name].findings == ()


def test_all_of_them_in_one_trial(modules: Path) -> None:
    """Each is found although others came before it; good ones in between pass."""
    names = []
    for i, (which, (body, _)) in enumerate(hostile.EFFECTS.items()):
        if which.startswith("hung") or which == "crashed-keeper":
            continue
        names += [hostile.write(modules, which, body), hostile.write(modules, f"good_{i}", "import json")]
    before = hostile.state()
    verdicts = tried(*names)
    assert hostile.state() == before
    assert list(verdicts) == names
    for name, verdict in verdicts.items():
        assert verdict.passed == name.startswith("ffc_good")


def test_the_kinds_are_all_tried_here() -> None:
    tested = {which.partition("-")[0] for which in hostile.EFFECTS}
    assert set(KINDS) - tested == {"denied", "library"}  # tested below
    assert set(DESCRIPTIONS) == set(KINDS)
    assert set(KINDS) > ENDINGS


def test_the_blame_goes_to_whose_code_it_was_and_to_who_imports_it(modules: Path) -> None:
    inner = hostile.write(modules, "inner", "import os\nos.environ['FFC_SET'] = '1'")
    outer = hostile.write(modules, "outer", f"import {inner}")
    later = hostile.write(modules, "later", f"try:\n import {inner}\nexcept BaseException: pass")
    other = hostile.write(modules, "other", "")
    verdicts = tried(outer, later, other)
    finding = Finding("environment", "set FFC_SET", inner)
    for name in (inner, outer, later):
        assert verdicts[name].findings == (finding,)
    assert verdicts[other].passed


def test_a_crash_is_blamed_on_the_innermost_import(modules: Path) -> None:
    inner = hostile.write(modules, "inner", "import os\nos.abort()")
    outer = hostile.write(modules, "outer", f"import json\nimport {inner}")
    verdicts = tried(outer)
    assert {verdict.findings for verdict in verdicts.values()} == {
        (Finding("crashed", "ended the process by SIGABRT", inner),)
    }
    assert set(verdicts) == {inner, outer}


def test_what_is_tolerated_does_not_begin_anew_and_is_named_all_the_same(modules: Path) -> None:
    setter = hostile.write(modules, "setter", "import os\nos.environ['FFC_SET'] = '1'")
    reader = hostile.write(modules, "reader", "import os\nassert os.environ['FFC_SET']")
    verdicts = tried(setter, reader, tolerates=lambda module, finding: finding.kind == "environment")
    assert verdicts[setter].findings == (Finding("environment", "set FFC_SET", setter),)
    assert verdicts[reader].passed
    assert not tried(setter, reader)[reader].passed


def test_an_optional_import_that_fails_is_no_fault(modules: Path) -> None:
    broken = hostile.write(modules, "broken", "1 / 0")
    user = hostile.write(modules, "user", f"try:\n import {broken}\nexcept ZeroDivisionError: pass")
    verdicts = tried(broken, user)
    assert [finding.kind for finding in verdicts[broken].findings] == ["raised"]
    assert verdicts[user].passed


def test_nothing_denied_comes_along(modules: Path) -> None:
    inner = hostile.write(modules, "inner", "")
    outer = hostile.write(modules, "outer", f"import {inner}")
    hidden = hostile.write(modules, "hidden", f"try:\n import {inner}\nexcept BaseException: pass")
    for options in ({"deny": ("ffc_inn*",)}, {"local_names": frozenset({inner})}):
        verdicts = tried(outer, hidden, **options)
        for name in (outer, hidden):
            assert [(finding.kind, finding.module) for finding in verdicts[name].findings] == [
                ("denied", inner)
            ]


def test_an_unsafe_library_is_found(modules: Path) -> None:
    name = hostile.write(modules, "loads", "import _ctypes_test")
    cautious = Canary(seconds=10, unsafe_libraries=[("_ctypes_test*.so", "it is no good")])
    with cautious.start([name]) as trial:
        found = trial.wait(WAIT)[name].findings
    if not found:
        pytest.skip("this Python has no _ctypes_test")
    if found[0].kind == "raised":
        pytest.skip(found[0].detail)
    assert [(each.kind, "it is no good" in each.detail) for each in found] == [("library", True)]


def test_a_good_trial_is_one_process(modules: Path) -> None:
    names = [
        hostile.write(
            modules,
            f"good_{i}",
            f"import os\nopen({str(modules / 'pids')!r}, 'a').write(f'{{os.getpid()}}\\n')",
        )
        for i in range(300)
    ]
    verdicts = tried(*names)
    assert list(verdicts) == names
    assert all(verdict.passed for verdict in verdicts.values())
    assert len(set((modules / "pids").read_text().split())) == 1


def test_nothing_is_sent_or_written_through_what_was_inherited(modules: Path) -> None:
    ours, theirs = socket.socketpair()
    path = modules / "buffered"
    with ours, theirs, open(path, "w") as file:
        ours.setblocking(False)
        file.write("the parent's")
        name = hostile.write(
            modules,
            "sends",
            f"""
            import gc, os
            for thing in gc.get_objects():
                if type(thing).__name__ == "TextIOWrapper": thing.flush()
            try: os.write({theirs.fileno()}, b"x")
            except OSError: pass
            """,
        )
        assert name in tried(name)
        assert path.read_text() == ""
        with pytest.raises(BlockingIOError):
            ours.recv(1)


def test_a_connection_that_the_parent_closes_is_closed(modules: Path) -> None:
    """A trial that goes on does not hold it open."""
    slow = hostile.write(modules, "slow", "import time\ntime.sleep(1000)")
    ours, theirs = socket.socketpair()
    with ours, canary().start([slow]) as trial:
        while not psutil.Process().children(recursive=True)[1:]:
            time.sleep(0.001)
            assert not trial.poll()
        theirs.close()
        ours.settimeout(WAIT)
        assert ours.recv(1) == b""


def test_the_parent_need_not_wait(modules: Path) -> None:
    slow = hostile.write(modules, "slow", "import time\ntime.sleep(0.3)")
    quick = hostile.write(modules, "quick", "")
    start = time.monotonic()
    with canary().start([quick, slow]) as trial:
        assert time.monotonic() - start < 0.2
        assert not trial.poll()
        while quick not in trial.verdicts:
            assert not trial.poll()
        assert slow not in trial.verdicts
        ready, _, _ = select.select([trial], [], [], WAIT)
        assert ready == [trial]
        assert trial.wait(WAIT)[slow].passed
        assert trial.verdicts[slow].seconds > 0.3


def test_closed_in_the_middle_nothing_goes_on(modules: Path) -> None:
    body = textwrap.dedent(hostile.EFFECTS["process-daemon"][0])
    name = hostile.write(modules, "slow", body + "time.sleep(1000)")
    good = hostile.write(modules, "good", "")
    before = hostile.state()
    trial = canary().start([good, name])
    while len(psutil.Process().children(recursive=True)) < 3:  # keeper, canary, daemon
        time.sleep(0.001)
    trial.close()
    assert hostile.state() == before
    assert list(trial.verdicts) == [good]
    trial.close()


def test_all_time_is_bounded(modules: Path) -> None:
    names = [hostile.write(modules, f"slow_{i}", "import time\ntime.sleep(0.4)") for i in range(10)]
    with Canary(total_seconds=1).start(names) as trial:
        start = time.monotonic()
        verdicts = trial.wait(WAIT)
        assert time.monotonic() - start < 5
    assert 1 <= len(verdicts) <= 3
    assert list(verdicts) == names[: len(verdicts)]


def test_a_keeper_that_hangs_is_ended(modules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stops = hostile.write(
        modules, "stops", "import os, signal\nos.kill(os.getppid(), signal.SIGSTOP)\nwhile True: pass"
    )
    monkeypatch.setattr("frostfork.canary._CLOSE_SECONDS", 1.0)
    before = hostile.state()
    with Canary(total_seconds=0.5).start([stops]) as trial:
        verdicts = trial.wait(WAIT)
    assert [finding.kind for finding in verdicts[stops].findings] == ["crashed"]
    end = time.monotonic() + 10
    while hostile.state() != before and time.monotonic() < end:
        time.sleep(0.01)
    assert hostile.state() == before


def test_a_parent_that_is_killed_leaves_nothing_behind(modules: Path) -> None:
    hang = hostile.write(modules, "hang", "while True: pass")
    pids = run_fresh(f"""
        import json, os, sys, time
        sys.path.insert(0, {str(modules)!r})
        import psutil
        from frostfork import Canary
        if (middle := os.fork()) == 0:
            Canary().start([{hang!r}])
            while len(psutil.Process().children(recursive=True)) < 2:
                time.sleep(0.001)
            open({str(modules / "pids")!r}, "w").write(json.dumps([c.pid for c in psutil.Process().children(True)]))
            os.kill(os.getpid(), 9)
        os.waitpid(middle, 0)
        print(open({str(modules / "pids")!r}).read())
    """)
    end = time.monotonic() + 10
    while any(map(psutil.pid_exists, pids)) and time.monotonic() < end:
        time.sleep(0.01)
    assert len(pids) == 2
    assert not any(map(psutil.pid_exists, pids))


def test_only_our_own_child_is_waited_for(modules: Path) -> None:
    name = hostile.write(modules, "good", "")
    child = os.fork()
    if child == 0:
        os._exit(7)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert tried(name)[name].passed
    assert os.waitpid(child, 0) == (child, 7 << 8)


@pytest.mark.parametrize("action", ["signal.SIG_IGN", "lambda *_: os.waitpid(-1, os.WNOHANG)"])
def test_a_parent_may_do_as_it_likes_with_sigchld(modules: Path, action: str) -> None:
    name = hostile.write(modules, "runs", hostile.HARMLESS["runs"])
    assert run_fresh(f"""
        import json, os, signal, sys
        sys.path.insert(0, {str(modules)!r})
        from frostfork import Canary
        signal.signal(signal.SIGCHLD, {action})
        with Canary().start([{name!r}]) as trial:
            print(json.dumps([[verdict.passed for verdict in trial.wait(30).values()], trial.poll()]))
    """) == [[True], True]


def test_a_trial_may_begin_in_any_thread(modules: Path) -> None:
    """And that thread may end before the trial does."""
    name = hostile.write(modules, "slow", "import time\ntime.sleep(0.1)")
    trials = []
    thread = threading.Thread(target=lambda: trials.append(canary().start([name])))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that a process with threads forks
        thread.start()
        thread.join()
    with trials[0] as trial:
        assert trial.wait(WAIT)[name].passed


def test_handlers_of_the_parent_run_in_no_canary(modules: Path) -> None:
    """Airflow's end the parent's other children."""
    name = hostile.write(modules, "kills", "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)")
    calls: list[int] = []
    before = signal.signal(
        signal.SIGTERM, lambda *_: (modules / "called").write_text("x") and calls.append(1)
    )
    try:
        findings = tried(name)[name].findings
    finally:
        signal.signal(signal.SIGTERM, before)
    assert [finding.kind for finding in findings] == ["crashed"]
    assert not (modules / "called").exists()


def test_functions_for_the_end_do_not_run_in_a_canary(modules: Path) -> None:
    name = hostile.write(
        modules, "exit", f"import atexit\natexit.register(open, {str(modules / 'ran')!r}, 'w')"
    )
    tried(name)
    assert not (modules / "ran").exists()


def test_nothing_to_try() -> None:
    with canary().start(["os", "sys"]) as trial:
        assert select.select([trial], [], [], 0)[0]
        assert trial.poll()
        assert trial.verdicts == {}


def test_a_child_leaves_the_trial_alone(modules: Path) -> None:
    slow = hostile.write(modules, "slow", "import time\ntime.sleep(0.3)")
    with canary().start([slow]) as trial:
        child = os.fork()
        if child == 0:
            trial.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert trial.wait(WAIT)[slow].passed


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become someone else")
def test_where_no_canary_can_be_forked_the_trial_says_so() -> None:
    error, verdicts = run_fresh("""
        import json, os, resource
        import frostfork.canary
        os.setuid(100_000 + os.getpid())  # the limit does not bind root, and nobody else is this user
        resource.setrlimit(resource.RLIMIT_NPROC, (2, 2))
        with frostfork.canary.Canary().start(["colorsys"]) as trial:
            trial.wait(30)
            assert trial.poll()
        print(json.dumps([trial.error, list(trial.verdicts)]))
    """)
    assert "temporarily unavailable" in error
    assert verdicts == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become someone else")
def test_the_same_for_an_ordinary_user() -> None:
    """All that needs no privilege is found, and what was started is ended."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is for root's eyes
        os.chmod(folder, 0o755)
        _try_as_an_ordinary_user(Path(folder))


def _try_as_an_ordinary_user(modules: Path) -> None:
    chosen = [
        "crashed-segv",
        "process-daemon",
        "thread-python",
        "signal-c",
        "environment-c",
        "lock-flock",
        "hung-busy",
    ]
    names = {
        hostile.write(modules, which, hostile.EFFECTS[which][0]): which.partition("-")[0] for which in chosen
    }
    found = run_fresh(f"""
        import json, os, sys
        sys.path.insert(0, {str(modules)!r})
        import ctypes, fcntl, signal, threading  # an ordinary user may not read where this Python lies
        import frostfork.canary, psutil
        os.setgid(65534)
        os.setuid(65534)
        with frostfork.canary.Canary(seconds=2).start({list(names)!r}) as trial:
            verdicts = trial.wait(60)
        found = {{name: [finding.kind for finding in verdict.findings] for name, verdict in verdicts.items()}}
        print(json.dumps([found, len(psutil.Process().children(recursive=True))]))
    """)
    assert found[1] == 0
    for name, kind in names.items():
        assert kind in found[0][name], found[0]


def test_one_string_is_one_name_or_pattern(modules: Path) -> None:
    good = hostile.write(modules, "good", "")
    with canary().start(good) as trial:
        assert trial.names == (good,)
        assert trial.wait(WAIT)[good].passed
    with canary().start(good, deny=good) as trial:
        assert [finding.kind for finding in trial.wait(WAIT)[good].findings] == ["denied"]


def test_the_largest_limits_work(modules: Path) -> None:
    good = hostile.write(modules, "good", "")
    largest = Canary(math.inf, 1 << 50, total_seconds=math.inf, processes=1 << 50, file_bytes=1 << 50)
    with largest.start([good]) as trial:
        assert trial.wait(WAIT)[good].passed
