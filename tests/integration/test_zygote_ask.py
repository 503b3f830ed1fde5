# SPDX-License-Identifier: Apache-2.0
"""Zygote.ask(): workers that begin before their owner knows of them."""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
import time
from collections.abc import Iterator

import pytest

from frostfork import ConfigurationError, Zygote, ZygoteError
from tests.integration import zygote_work as work
from tests.integration.zygote_work import SECONDS


@pytest.fixture
def zygote() -> Iterator[Zygote]:
    with Zygote(work.Recorder()) as started:
        yield started


def say(text: str, *, fds: list[int]) -> None:
    os.write(fds[0], text.encode())


def readable(fd: int, seconds: float) -> bool:
    return bool(select.select([fd], [], [], seconds)[0])


def test_it_begins_while_its_owner_does_something_else(zygote: Zygote) -> None:
    read, write = os.pipe()
    try:
        coming = zygote.ask(say, ("here",), fds=[write], name="quick")
        assert readable(read, SECONDS)  # and nobody has asked whether it is forked
        assert os.read(read, 10) == b"here"
        worker = coming.worker(SECONDS)
        assert (worker.name, worker.generation) == ("quick", 1)
        assert coming.worker() is worker
        assert worker.wait(SECONDS).code == 0
    finally:
        os.close(read)
        os.close(write)


def test_a_worker_knows_when_it_was_forked_and_not_when_it_was_asked_for(zygote: Zygote) -> None:
    os.kill(zygote.pid, signal.SIGSTOP)
    coming = zygote.ask(work.code, (0,))
    time.sleep(0.05)
    before = time.monotonic()
    os.kill(zygote.pid, signal.SIGCONT)
    worker = coming.worker(SECONDS)
    assert before < worker.forked_at < time.monotonic()
    worker.wait(SECONDS)


def test_an_owner_that_does_not_ignore_broken_pipes_lives_on(zygote: Zygote) -> None:
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        coming = zygote.ask(work.code, (3,))
        time.sleep(0.2)  # it has ended by then
        assert coming.worker(SECONDS).wait(SECONDS).code == 3
    finally:
        signal.signal(signal.SIGPIPE, before)


def test_several_at_a_time_in_any_order(zygote: Zygote) -> None:
    coming = [zygote.ask(work.code, (at,)) for at in range(5)]
    between = zygote.fork(work.code, (9,))
    codes = [each.worker(SECONDS).wait(SECONDS).code for each in reversed(coming)]
    assert codes == [4, 3, 2, 1, 0]
    assert between.wait(SECONDS).code == 9


def test_a_killed_zygote_is_told_and_the_next_question_starts_another(zygote: Zygote) -> None:
    read, write = os.pipe()
    os.kill(zygote.pid, signal.SIGSTOP)
    coming = zygote.ask(say, ("here",), fds=[write])
    os.kill(zygote.pid, signal.SIGKILL)
    for _ in range(2):
        with pytest.raises(ZygoteError, match="ended before it said whether it had forked"):
            coming.worker(SECONDS)
    os.close(write)
    assert os.read(read, 10) == b""  # it was not forked, nor is it tried again
    os.close(read)
    assert zygote.ask(work.code, (3,)).worker(SECONDS).generation == 2


def test_one_that_hangs_does_not_answer_and_forks_nothing_later(zygote: Zygote) -> None:
    read, write = os.pipe()
    os.kill(zygote.pid, signal.SIGSTOP)
    coming = zygote.ask(work.hold, (), fds=[write])
    os.close(write)
    with pytest.raises(ZygoteError, match="did not answer in time"):
        coming.worker(0.05)
    os.kill(zygote.pid, signal.SIGCONT)
    assert readable(read, SECONDS)  # all that had the other end have ended
    os.close(read)


@pytest.mark.parametrize("forked", [False, True])
def test_what_nobody_wants_any_more_ends(zygote: Zygote, forked: bool) -> None:
    read, write = os.pipe()
    if not forked:
        os.kill(zygote.pid, signal.SIGSTOP)
    coming = zygote.ask(work.hold, (), fds=[write])
    os.close(write)
    if forked:
        assert os.read(read, 1) == b"."
    coming.abandon()
    coming.abandon()
    os.kill(zygote.pid, signal.SIGCONT)
    while os.read(read, 1):
        pass
    os.close(read)
    with pytest.raises(ZygoteError, match="abandoned"):
        coming.worker()


def test_a_refused_fork_is_what_the_kernel_said(zygote: Zygote) -> None:
    resource.prlimit(zygote.pid, resource.RLIMIT_NOFILE, (3, 3))
    coming = zygote.ask(work.code)
    for _ in range(2):
        with pytest.raises(OSError, match="Too many open files") as caught:
            coming.worker(SECONDS)
        assert caught.value.errno == errno.EMFILE


def test_wrong_arguments_are_told_before_anything_is_sent(zygote: Zygote) -> None:
    with pytest.raises(ZygoteError, match="cannot be pickled"):
        zygote.ask(lambda: None)
    with pytest.raises(TypeError, match="name must be"):
        zygote.ask(work.code, name=3)
    with pytest.raises(ValueError, match="descriptors at most"):
        zygote.ask(work.code, fds=[0] * 1000)
    with pytest.raises(ConfigurationError, match="timeout is -1"):
        zygote.ask(work.code, timeout=-1)
    zygote.close()
    with pytest.raises(ZygoteError, match="closed"):
        zygote.ask(work.code)
