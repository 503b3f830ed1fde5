# SPDX-License-Identifier: Apache-2.0
"""observe() and the journal: what a child imported reaches the parent, however the child ends."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import frostfork
from frostfork import Journal, Observation, observe
from tests.integration.forking import run_child, wait_bounded


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Modules of our own that no interpreter has imported before."""
    (tmp_path / "ff_outer").mkdir()
    (tmp_path / "ff_outer" / "__init__.py").write_text("from ff_outer import inner\nimport ff_slow\n")
    (tmp_path / "ff_outer" / "inner.py").write_text("value = 1\n")
    (tmp_path / "ff_slow.py").write_text(
        "import time\nend = time.monotonic() + 0.05\nwhile time.monotonic() < end: pass\n"
    )
    (tmp_path / "ff_bad.py").write_text("raise KeyError('no such thing')\n")
    (tmp_path / "ff_exit.py").write_text("raise SystemExit(3)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("ff_")]:
        del sys.modules[name]


def test_modules_with_their_times_in_the_order_of_import(package: Path) -> None:
    with observe() as seen:
        importlib.import_module("ff_outer")
    names = [module.name for module in seen.modules]
    assert names == ["ff_outer", "ff_outer.inner", "ff_slow"]
    outer, inner, slow = seen.modules
    assert outer.origin == str(package / "ff_outer" / "__init__.py")
    assert 0.05 <= slow.seconds <= slow.cumulative <= outer.cumulative
    assert outer.seconds < slow.seconds
    assert all(module.error is None for module in seen.modules)
    assert seen.complete
    assert seen.lost == 0
    assert seen.wall_seconds >= 0.05
    assert seen.pages is not None and seen.pages.present > 1000
    assert inner.cumulative < 0.05
    assert Observation.from_json(seen.to_json()) == seen


def test_failures_have_their_exception_and_no_frame_of_ours(package: Path) -> None:
    def import_bad() -> str:
        try:
            import ff_bad  # noqa: F401
        except KeyError:
            return traceback.format_exc()
        return ""

    plain = import_bad()
    with observe() as seen:
        observed = import_bad()
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("ff_is_not_there")
        with pytest.raises(SystemExit):
            importlib.import_module("ff_exit")
    assert observed == plain
    errors = {module.name: module.error for module in seen.modules}
    assert errors == {"ff_bad": "KeyError", "ff_is_not_there": "ModuleNotFoundError", "ff_exit": "SystemExit"}


def test_importlib_is_put_back(package: Path) -> None:
    import _frozen_importlib

    original = _frozen_importlib._find_and_load
    with observe():
        assert _frozen_importlib._find_and_load is not original
        with pytest.raises(RuntimeError, match="already being recorded"), observe():
            pass
    assert _frozen_importlib._find_and_load is original


@pytest.mark.parametrize("wrong", [0, [], {}, "", False, 5])
def test_a_journal_is_a_journal(wrong: object) -> None:
    with pytest.raises(TypeError, match="journal must be of type Journal or None"):
        observe(wrong)


def through_a_journal(body: Callable[[], None]) -> tuple[Observation, int]:
    journal = Journal()
    pid = os.fork()
    if pid == 0:
        with observe(journal):
            body()
        os._exit(0)
    status = wait_bounded(pid)
    seen = Observation.from_journal(journal)
    journal.close()
    return seen, status


def test_a_killed_child_leaves_what_it_had_imported(package: Path) -> None:
    def body() -> None:
        importlib.import_module("ff_outer")
        os.kill(os.getpid(), signal.SIGKILL)

    seen, status = through_a_journal(body)
    assert status == -signal.SIGKILL
    assert [module.name for module in seen.modules] == ["ff_outer", "ff_outer.inner", "ff_slow"]
    assert not seen.complete


def test_a_report_of_any_size_blocks_nobody(package: Path) -> None:
    def body() -> None:
        for number in range(3000):  # more than a pipe or a socket would hold
            try:
                importlib.import_module(f"ff_missing_{'x' * 200}_{number}")
            except ModuleNotFoundError:
                pass

    seen, status = through_a_journal(body)
    assert status == 0
    assert len(seen.modules) == 3000
    assert seen.complete


def test_user_code_that_closes_and_reuses_descriptors_is_not_written_into(
    package: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"

    def body() -> None:
        os.closerange(3, 256)
        opened = [os.open(mine, os.O_CREAT | os.O_RDWR) for _ in range(60)]
        importlib.import_module("ff_outer")
        assert len(opened) == 60

    seen, status = through_a_journal(body)
    assert status in (0, 1)
    assert mine.read_bytes() == b""
    assert not seen.complete


def test_a_record_cut_off_by_a_kill_is_left_out() -> None:
    journal = Journal()
    whole = [b"import", b"a", b"/a.py", b"1", b"2", b"3", b"", b"4", b"5", b"c"]
    os.write(journal.fileno(), b"\0".join([*whole, b"import", b"b", b"/b.py", b"4", b""]))
    assert [module.name for module in Observation.from_journal(journal).modules] == ["a"]
    journal.close()
    with pytest.raises(ValueError, match="closed"):
        journal.fileno()


def test_observed_child_of_fork_reports_its_copies(package: Path) -> None:
    blob = bytearray(b"x" * (4096 * 300))

    def body() -> dict[str, int]:
        with observe() as seen:
            blob[::4096] = b"y" * len(blob[::4096])
        assert seen.copies is not None
        return {"unshared": seen.copies.unshared}

    assert run_child(body, lambda: frostfork.fork(baseline=True))["unshared"] >= 300


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b'{"format": 2}', b"\xff", b'{"format": 1, "modules": 3}']
)
def test_from_json_refuses_what_it_did_not_write(data: bytes) -> None:
    with pytest.raises(frostfork.ObservationError, match="not an observation"):
        Observation.from_json(data)


def test_a_wrapper_from_the_first_observation_does_no_harm_in_the_second(package: Path) -> None:
    import _frozen_importlib

    original = _frozen_importlib._find_and_load
    try:
        with observe():
            ours = _frozen_importlib._find_and_load
            _frozen_importlib._find_and_load = lambda *args: ours(*args)
        with observe() as seen:
            importlib.import_module("ff_slow")
        assert [module.name for module in seen.modules] == ["ff_slow"]
    finally:
        _frozen_importlib._find_and_load = original


def test_a_grandchild_writes_nothing_into_its_parents_journal_and_may_observe_itself(package: Path) -> None:
    def body() -> None:
        def grandchild() -> list[str]:
            importlib.import_module("ff_slow")
            with observe() as own:
                importlib.import_module("ff_outer")
            return [module.name for module in own.modules]

        assert run_child(grandchild, os.fork) == ["ff_outer", "ff_outer.inner"]
        importlib.import_module("ff_slow")

    seen, status = through_a_journal(body)
    assert status == 0
    assert [module.name for module in seen.modules if module.name.startswith("ff_")] == ["ff_slow"]


def test_two_writers_lose_nothing() -> None:
    journal = Journal()
    pids = []
    for number in range(2):
        pid = os.fork()
        if pid == 0:
            for at in range(5000):
                journal.write_import(f"module{number}.{at}", "")
            os._exit(0)
        pids.append(pid)
    assert [wait_bounded(pid) for pid in pids] == [0, 0]
    assert len(Observation.from_journal(journal).modules) == 10_000
    journal.close()
