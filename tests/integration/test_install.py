# SPDX-License-Identifier: Apache-2.0
"""install(): every later fork, whoever calls it."""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
import threading

import pytest

import frostfork
from tests.integration.forking import run_child, wait_bounded


def frozen() -> bool:
    return gc.get_freeze_count() > 1000


def test_os_fork_freezes_while_installed_and_not_after() -> None:
    assert not run_child(frozen, os.fork)
    installation = frostfork.install()
    assert run_child(frozen, os.fork)
    installation.uninstall()
    installation.uninstall()
    assert not run_child(frozen, os.fork)
    assert not frozen()


def test_each_installation_is_undone_by_itself() -> None:
    with frostfork.install() as outer:
        with frostfork.install():
            assert run_child(frozen, os.fork)
        assert run_child(frozen, os.fork)
        assert outer.active
    assert not run_child(frozen, os.fork)


def test_multiprocessing_and_grandchildren() -> None:
    with frostfork.install():
        context = multiprocessing.get_context("fork")
        with context.Pool(1) as pool:
            assert pool.apply(frozen)
            pool.close()
            pool.join()
        assert run_child(lambda: run_child(frozen, os.fork), os.fork)


def test_replacing_os_fork_is_put_back_in_any_order() -> None:
    plain = os.fork
    one = frostfork.install(replace_os_fork=True)
    two = frostfork.install(replace_os_fork=True)
    assert os.fork is not plain
    one.uninstall()
    assert os.fork is not plain
    assert run_child(frozen, os.fork)
    two.uninstall()
    assert os.fork is plain


@pytest.mark.parametrize("replace", [False, True])
def test_baseline_in_the_child(replace: bool) -> None:
    def copies() -> tuple[int, int]:
        baseline = frostfork.child_baseline()
        before = baseline.compare().unshared
        blob[::4096] = b"y" * len(blob[::4096])
        return baseline.pid == os.getpid(), baseline.compare().unshared - before

    blob = bytearray(b"x" * (4096 * 512))
    with frostfork.install(baseline=True, replace_os_fork=replace):
        own, unshared = run_child(copies, os.fork)
    assert own
    assert 512 <= unshared < 600
    with pytest.raises(frostfork.BaselineError, match="was not forked with a baseline"):
        frostfork.child_baseline()


def test_a_child_does_not_take_its_parents_baseline_for_its_own() -> None:
    def grandchild() -> str:
        try:
            return f"has that of {frostfork.child_baseline().pid}"
        except frostfork.BaselineError:
            return "none"

    def child() -> str:
        assert frostfork.child_baseline().pid == os.getpid()
        return str(run_child(grandchild, frostfork.fork))

    assert run_child(child, lambda: frostfork.fork(baseline=True)) == "none"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="os.fork does not warn of threads before 3.12")
def test_the_warning_is_the_callers_with_os_fork_replaced() -> None:
    stop = threading.Event()
    worker = threading.Thread(target=stop.wait)
    worker.start()
    try:
        with frostfork.install(replace_os_fork=True), pytest.warns(DeprecationWarning) as caught:
            pid = os.fork()
            if pid == 0:
                os._exit(0)
        assert wait_bounded(pid) == 0
        assert caught[0].filename == __file__
    finally:
        stop.set()
        worker.join(10)
