# SPDX-License-Identifier: Apache-2.0
"""Which code a parsing child runs, from its fork on.

What Airflow does between the fork and the parse, logging set up above all, is a quarter of a child's functions, and
runs in every child of every file: code that lies scattered there costs more than any other.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from frostfork.observe import watch_code

if TYPE_CHECKING:
    from collections.abc import Iterator

    from frostfork.journal import Journal


class Watching:
    """Notes the code of children that are chosen for it; ends in all others what the parent notes of itself."""

    def __init__(self) -> None:
        self._watch = watch_code()
        self._forking = False
        self._wanted = False  # in the child that is forked next
        os.register_at_fork(after_in_child=self._start)

    @contextlib.contextmanager
    def next_fork(self, wanted: bool) -> Iterator[None]:
        """Within: a fork. wanted: whether its child notes the code that it runs."""
        self._forking, self._wanted = True, wanted
        try:
            yield
        finally:
            self._forking = False

    def _start(self) -> None:
        if not self._forking:
            return
        self._watch.finish()  # the parent's
        self._wanted = self._wanted and self._watch.start()

    def finish(self, journal: Journal) -> None:
        """In the child, once it has done its work."""
        if self._wanted:
            with contextlib.suppress(OSError):  # user code closed the journal
                self._watch.write(journal)
