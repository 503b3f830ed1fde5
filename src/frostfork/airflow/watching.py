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
        self._next: bool | None = None  # in the parent: whether the child that it forks next notes its code
        self._own = False  # in the child: whether it does
        os.register_at_fork(after_in_child=self._start)

    @contextlib.contextmanager
    def next_fork(self, wanted: bool) -> Iterator[None]:
        """Within: a fork. wanted: whether its child notes the code that it runs."""
        self.expect(wanted)
        try:
            yield
        finally:
            self._next = None

    def expect(self, wanted: bool | None) -> None:
        """What holds for the child of the next fork, for who cannot enclose it. None: it is no parsing child."""
        self._next = wanted

    def _start(self) -> None:
        wanted, self._next = self._next, None
        if wanted is not None:
            self._watch.finish()  # the parent's
            self._own = wanted and self._watch.start()

    def finish(self, journal: Journal) -> None:
        """In the child, once it has done its work."""
        if self._own:
            with contextlib.suppress(Exception):  # user code closed the journal
                self._watch.write(journal)
