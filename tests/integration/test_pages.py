# SPDX-License-Identifier: Apache-2.0
"""Counters against memory whose state is known, and against the kernel's own sums."""

from __future__ import annotations

import gc
import mmap
import os
import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable

import pytest

import frostfork
from frostfork import PAGE_SIZE, Baseline, page_counts
from tests.integration.forking import run_child


def region(pages: int) -> mmap.mmap:
    memory = mmap.mmap(-1, pages * PAGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return memory


def rollup(pid: int | str = "self") -> dict[str, int]:
    with open(f"/proc/{pid}/smaps_rollup") as text:
        return {name: int(kb) * 1024 for name, kb in re.findall(r"^(\w+): +(\d+) kB", text.read(), re.M)}


def test_counts_agree_with_smaps_rollup() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "print('ready', flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        counts, sums = page_counts(child.pid), rollup(child.pid)
    finally:
        child.communicate(b"\n", timeout=30)
    assert abs(counts.bytes.present - sums["Rss"]) <= sums["Rss"] * 0.02
    assert abs(counts.bytes.anonymous - sums["Anonymous"]) <= sums["Anonymous"] * 0.02
    private = sums["Private_Clean"] + sums["Private_Dirty"]
    assert abs(counts.bytes.exclusive - private) <= private * 0.05


def test_unshared_is_exact_for_known_writes() -> None:
    # A private mapping of a file, once written, is anonymous memory of a kind that the interpreter itself leaves alone
    # between two comparisons. tests/c/test_baseline.c shows the same without an interpreter, to the page.
    with tempfile.TemporaryFile() as file:
        file.truncate(3000 * PAGE_SIZE)
        memory = mmap.mmap(file.fileno(), 3000 * PAGE_SIZE, flags=mmap.MAP_PRIVATE)
    memory.write(b"x" * len(memory))

    def change() -> tuple[int, int | None]:
        baseline = frostfork.child_baseline()
        baseline.compare()  # once, so that what comparing itself touches is touched
        before = baseline.compare().by_kind["file"]
        for page in range(0, 2000, 2):
            memory[page * PAGE_SIZE] = 1
        after = baseline.compare().by_kind["file"]
        copied = None if after.copied is None else after.copied - (before.copied or 0)
        return after.unshared - before.unshared, copied

    unshared, copied = run_child(change, lambda: frostfork.fork(baseline=True))
    memory.close()
    assert abs(unshared - 1000) <= 2
    assert copied is None or abs(copied - 1000) <= 2


def test_new_and_dropped() -> None:
    memory = region(1000)
    memory[: 500 * PAGE_SIZE] = b"x" * (500 * PAGE_SIZE)
    baseline = Baseline.take()
    baseline.compare()
    before = baseline.compare()
    memory[500 * PAGE_SIZE : 700 * PAGE_SIZE] = b"x" * (200 * PAGE_SIZE)
    memory.madvise(mmap.MADV_DONTNEED, 0, 100 * PAGE_SIZE)
    after = baseline.compare()
    assert 200 <= after.new - before.new <= 204 + 50  # the copied bytes were an object of 50 pages or more
    assert 100 <= after.dropped - before.dropped <= 102 + 50


def test_parents_baseline_serves_its_children() -> None:
    memory = region(600)
    memory.write(b"x" * len(memory))
    baseline = Baseline.take()

    def unshared() -> int:
        gc.disable()  # a collection writes to all that the tests before this one left
        before = baseline.compare().unshared
        for page in range(600):
            memory[page * PAGE_SIZE] = 1
        return baseline.compare().unshared - before

    assert 600 <= run_child(unshared, os.fork) <= 700


def test_baseline_is_small_and_not_part_of_what_it_measures() -> None:
    memory = region(25_600)
    memory.write(b"x" * len(memory))
    before = page_counts().anonymous
    baseline = Baseline.take()
    assert page_counts().anonymous - before < 16
    assert baseline.anonymous >= 25_600
    assert baseline.nbytes < 4.5 * baseline.anonymous  # 1 GB in a megabyte: see tests/c/test_baseline.c


@pytest.mark.parametrize("look", [page_counts, Baseline.take])
@pytest.mark.parametrize("pid", [0, -1, 2**31, 10**30])
def test_a_pid_is_positive_and_fits(look: Callable[[int], object], pid: int) -> None:
    with pytest.raises(ValueError, match="above 0 and below"):
        look(pid)


@pytest.mark.parametrize("look", [page_counts, Baseline.take])
@pytest.mark.parametrize("pid", [1.5, True, False, "1", []])
def test_a_pid_is_a_whole_number(look: Callable[[object], object], pid: object) -> None:
    with pytest.raises(TypeError, match="pid must be a whole number, not"):
        look(pid)


def test_what_stands_for_a_whole_number_is_a_pid() -> None:
    class Number:
        def __index__(self) -> int:
            return os.getpid()

    assert page_counts(Number()).present > 0
    with pytest.raises(FileNotFoundError):
        page_counts(2**31 - 1)


def test_a_process_that_is_gone() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    with pytest.raises(FileNotFoundError) as caught:
        page_counts(pid)
    assert caught.value.filename == f"/proc/{pid}/pagemap"


AS_SOMEBODY = """
    import ctypes, os, sys, frostfork  # all before the change: the interpreter may lie where only root reads
    if os.getuid() == 0:
        os.setgid(54321)
        os.setuid(54321)
    # A change of uid clears the dumpable flag, and with it every entry of /proc.
    for look in (frostfork.page_counts, frostfork.Baseline.take, lambda: frostfork.page_counts(os.getppid())):
        try:
            look()
        except PermissionError as error:
            print(error.filename.startswith("/proc/"), error.errno)
    pid = frostfork.fork(baseline=True)
    if pid == 0:
        try:
            frostfork.child_baseline()
        except frostfork.BaselineError as error:
            print(type(error.__cause__).__name__)
        os._exit(0)
    os.waitpid(pid, 0)
    # Dumpable again: an ordinary user that may look at itself, without frame numbers.
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
    report = frostfork.Baseline.take().compare()
    print(frostfork.page_counts().present > 1000, report.copied, report.copied_unknown)
"""


@pytest.mark.root
def test_an_ordinary_user_gets_reasons() -> None:
    if os.getuid() != 0:
        pytest.skip("becoming another user needs root")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(AS_SOMEBODY)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.splitlines() == [
        "True 13", "True 13", "True 13", "PermissionError",
        "True None frame numbers cannot be read without CAP_SYS_ADMIN",
    ]  # fmt: skip
