# SPDX-License-Identifier: Apache-2.0
"""Who wrote the pages that parsing children copied: `frostfork.blame` for some of them, if [frostfork] blame asks."""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING

from frostfork.blame import BlameReport, blame

if TYPE_CHECKING:
    from collections.abc import Iterator

    from frostfork.journal import Journal

log = logging.getLogger("frostfork.airflow")


class Judging:
    """Judges every n-th child from its fork on, and adds up what it finds."""

    def __init__(self, every: int) -> None:
        self._every = every
        self._forks = 0
        self._chosen: blame | None = None  # by the parent, for the child that it forks next
        self._reports: list[BlameReport] = []
        if every:
            # Before any other hook: what those write is the fork's work, too.
            os.register_at_fork(after_in_child=self._start)

    @contextlib.contextmanager
    def next_fork(self) -> Iterator[None]:
        """Within: a fork. Its child is judged if it is its turn."""
        self._forks += 1
        if self._every and self._forks % self._every == 0:
            self._chosen = blame()
        try:
            yield
        finally:
            self._chosen = None

    def _start(self) -> None:
        if self._chosen is None:
            return
        try:
            self._chosen.start()
        except OSError:
            self._chosen = None

    def finish(self, journal: Journal) -> None:
        """In the child, once it has done its work."""
        if self._chosen is not None:
            with contextlib.suppress(Exception):
                journal.write("blame", self._chosen.finish().to_json().decode())

    def read(self, journal: Journal) -> None:
        """In the parent, once the child has ended."""
        for word, *fields in journal.records() if self._every else ():
            if word == "blame":
                self._reports.append(BlameReport.from_json(fields[0]))

    def summary(self) -> str:
        """A table for the log at the end; "" if nothing was to be judged."""
        if not self._every:
            return ""
        if not self._reports:
            return "frostfork judged no child: none ended by itself, or the kernel refused"
        total = BlameReport.total(self._reports)
        return f"frostfork judged {total.processes} children, together: {total}"
