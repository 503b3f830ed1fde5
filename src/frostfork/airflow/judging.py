# SPDX-License-Identifier: Apache-2.0
"""Who wrote the pages that parsing children copied: `frostfork.blame` for some of them, if [frostfork] blame asks."""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING

from frostfork.blame import BlameReport, blame
from frostfork.errors import ObservationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from frostfork.journal import Journal

log = logging.getLogger("frostfork.airflow")


class Judging:
    """Judges every n-th child from its fork on, and adds up what it finds."""

    def __init__(self, every: int) -> None:
        self._every = every
        self._forks = 0
        self._next: blame | None = None  # in the parent: for the child that it forks next
        self._own: blame | None = None  # in the child: its own; what it forks in its turn is not judged
        self._total = BlameReport()
        if every:
            # Before any other hook: what those write is the fork's work, too.
            os.register_at_fork(after_in_child=self._start)

    @contextlib.contextmanager
    def next_fork(self) -> Iterator[None]:
        """Within: a fork. Its child is judged if it is its turn."""
        self.expect(True)
        try:
            yield
        finally:
            self.expect(False)

    def expect(self, fork: bool) -> None:
        """Whether the next fork is of a parsing child, for who cannot enclose it."""
        self._forks += fork
        due = fork and self._every and self._forks % self._every == 0
        self._next = blame() if due else None

    def _start(self) -> None:
        self._own, self._next = self._next, None
        if self._own is None:
            return
        try:
            self._own.start()
        except OSError:
            self._own = None

    def finish(self, journal: Journal) -> None:
        """In the child, once it has done its work."""
        if self._own is not None:
            with contextlib.suppress(Exception):
                journal.write("blame", self._own.finish().to_json().decode())

    def read(self, journal: Journal) -> None:
        """In the parent, once the child has ended."""
        for word, *fields in journal.records() if self._every else ():
            if word == "blame":
                with contextlib.suppress(ObservationError):  # the user's code wrote into the journal
                    self._total = BlameReport.total((self._total, BlameReport.from_json(fields[0])))

    def summary(self) -> str:
        """A table for the log at the end; "" if nothing was to be judged."""
        if not self._every:
            return ""
        if not self._total.processes:
            return "frostfork judged no child: none ended by itself, or the kernel refused"
        return f"frostfork judged {self._total.processes} children, together: {self._total}"
