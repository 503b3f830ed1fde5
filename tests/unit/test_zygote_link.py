# SPDX-License-Identifier: Apache-2.0
"""The line between an owner and its zygote, without a zygote."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Iterator

import pytest

from frostfork._zygote.channel import MOST_FDS, Channel, Message, Parcel, pair
from frostfork._zygote.handle import _MOST_NAMES, _MOST_WORKERS, _portions
from frostfork._zygote.link import Link

SECONDS = 30.0


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = map(Channel, pair())
    yield ours, theirs
    ours.close()
    theirs.close()


def test_messages_come_whole_and_in_order(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    with pytest.raises(BlockingIOError):
        theirs.receive()
    bodies = [b"", b"short", b"x" * 40_000, b"y" * 3_000_000]
    for number, body in enumerate(bodies):
        parcel = Parcel(body)
        assert ours.send((number, "text", None), parcel)
        parcel.close()
    for number, body in enumerate(bodies):
        message = theirs.receive()
        assert message is not None
        assert message.header == (number, "text", None)
        assert message.take_body() == body
        assert (message.fds, message.cut) == ([], False)


def test_long_messages_without_memfd(ends: tuple[Channel, Channel], monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(name: str, flags: int) -> int:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "memfd_create", forbidden)
    parcel = Parcel(b"y" * 3_000_000)
    assert ends[0].send(("long",), parcel)
    parcel.close()
    message = ends[1].receive()
    assert message is not None
    assert message.take_body() == b"y" * 3_000_000


@pytest.mark.parametrize("body", [b"", b"y" * 3_000_000])
def test_descriptors_come_along_and_are_closed_on_exec(ends: tuple[Channel, Channel], body: bytes) -> None:
    ours, theirs = ends
    reader, writer = os.pipe()
    parcel = Parcel(body)
    assert ours.send(("take",), parcel, [writer] * MOST_FDS)
    parcel.close()
    os.close(writer)
    message = theirs.receive()
    assert message is not None
    assert len(message.fds) == MOST_FDS
    assert not any(map(os.get_inheritable, message.fds))
    os.write(message.fds[-1], b"x")
    assert message.take_body() == body
    message._replace(memfd=-1).drop()
    assert os.read(reader, 10) == b"x"
    assert os.read(reader, 10) == b""
    os.close(reader)


def test_what_was_said_before_the_end_is_read(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    theirs.send(("unread",))  # so that its end is a reset
    ours.send(("last words",))
    ours.close()
    message = theirs.receive()
    assert message is not None
    assert message.header == ("last words",)
    assert theirs.receive() is None
    assert not theirs.send(("anyone?",))


def test_what_came_between_the_question_and_the_wait_is_not_waited_for(ends: tuple[Channel, Channel]) -> None:
    link = Link(ends[0], Message.drop)
    answers = iter([False, True, True])
    began = time.monotonic()
    assert link.wait_until(lambda: next(answers), began + 5.0)
    assert time.monotonic() - began < 4.0


def test_one_reads_for_all(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    seen: set[int] = set()
    link = Link(ours, lambda message: seen.add(message.header[0]))
    waiting = [
        threading.Thread(target=link.wait_until, args=(lambda number=number: number in seen, None))
        for number in range(50)
    ]
    for thread in waiting:
        thread.start()
    for number in reversed(range(50)):
        assert theirs.send((number,))
    for thread in waiting:
        thread.join(SECONDS)
        assert not thread.is_alive()
    assert not link.wait_until(lambda: 99 in seen, time.monotonic() + 0.01)
    theirs.close()
    assert not link.wait_until(lambda: 99 in seen, None)
    assert link.gone


@pytest.mark.parametrize(
    ("names", "counts"),
    [
        (["a"], None),
        (["a"] * 1000, None),
        (["a" * 1000] * 100, None),
        (["a"] * 7, [MOST_FDS] * 7),
        (["a"] * 300, [3] * 300),
        (["a"] * 4, [MOST_FDS, 0, 1, MOST_FDS - 1]),
    ],
)
def test_portions_hold_everybody_once_and_are_not_too_large(
    names: list[str], counts: list[int] | None
) -> None:
    fds = None if counts is None else [[0] * count for count in counts]
    portions = _portions(names, fds)
    assert [index for start, end in portions for index in range(start, end)] == list(range(len(names)))
    for start, end in portions:
        assert 0 < end - start <= _MOST_WORKERS
        assert sum(map(len, names[start:end])) <= _MOST_NAMES
        assert sum(counts[start:end]) <= MOST_FDS if counts else True


def test_sending_to_who_does_not_read_ends_in_time(ends: tuple[Channel, Channel]) -> None:
    link = Link(ends[0], Message.drop)
    while link.tell(("x" * 10_000,)):
        pass
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        link.send(("late",), deadline=began + 0.05)
    assert 0.05 <= time.monotonic() - began < SECONDS

    waiting = threading.Thread(target=link.send, args=(("later",),))
    waiting.start()
    seen: list[object] = []
    while ("later",) not in seen and time.monotonic() < began + SECONDS:
        with contextlib.suppress(BlockingIOError):
            seen.append(getattr(ends[1].receive(), "header", None))
    waiting.join(SECONDS)
    assert not waiting.is_alive()
    assert seen[-1] == ("later",)


def test_thread_that_was_interrupted_as_the_reader_reads_again(ends: tuple[Channel, Channel]) -> None:
    link = Link(ends[0], lambda message: came.append(message.header))
    came: list[object] = []
    link._reader = threading.get_ident()  # as an interrupt may leave it
    assert ends[1].send(("it",))
    assert link.wait_until(lambda: bool(came), time.monotonic() + SECONDS)
    assert link._reader == 0
