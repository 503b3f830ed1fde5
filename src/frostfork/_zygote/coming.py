# SPDX-License-Identifier: Apache-2.0
"""A worker that was asked for, and of which its owner does not know yet."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from frostfork._zygote.worker import Worker
from frostfork.errors import ZygoteError

if TYPE_CHECKING:
    from frostfork._zygote.handle import Handle, Question


class Coming:
    """Its fork was asked for: it may be running, or not be forked yet, or never be.

    Ask for it in the end, by worker() or abandon(). Not for several threads.
    """

    def __init__(self, handle: Handle, question: Question) -> None:
        self._handle = handle
        self._question: Question | None = question
        self._worker: Worker | None = None
        # Not the exception, whose frames and this would hold each other.
        self._why_not: tuple[type[Exception], tuple[object, ...]] = (
            ZygoteError,
            ("this worker was abandoned",),
        )

    @property
    def is_settled(self) -> bool:
        """Whether worker() would not wait any more."""
        return self._question is None

    def worker(self, timeout: float | None = None) -> Worker:
        """Wait until it is forked. OSError: that was refused. ZygoteError: there is none, and will be none.

        A zygote that is killed may have forked one all the same, which nobody knows of.
        """
        if self._question is not None:
            try:
                question, self._question = self._question, None
                self._worker = self._take(question, timeout)
            except Exception as error:
                self._why_not = type(error), error.args
                raise
        if self._worker is None:
            kind, arguments = self._why_not
            raise kind(*arguments)
        return self._worker

    def _take(self, question: Question, timeout: float | None) -> Worker:
        deadline = None if timeout is None else time.monotonic() + timeout
        (found,) = self._handle.take(question, deadline)
        if found is None:
            raise ZygoteError(f"the zygote ({self._handle.pid}) ended before it said whether it had forked")
        if isinstance(found, Exception):
            raise found
        return found

    def abandon(self) -> None:
        """Nobody wants it any more: it is killed, also if it is not forked yet."""
        if self._question is not None:
            question, self._question = self._question, None
            self._handle.abandon(question)
