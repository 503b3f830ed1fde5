# SPDX-License-Identifier: Apache-2.0
"""What a learning zygote remembers for others: its successor, and the next start of the program."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from frostfork._heritage import Estate, Heritage, is_empty
from frostfork.errors import LedgerError
from frostfork.ledger_file import LedgerFile
from frostfork.preload import Ledger, Verdict
from frostfork.preload.verdict import was_killed
from frostfork.staleness import InstalledWatch, Mark, unchanged

if TYPE_CHECKING:
    from frostfork.observe import Observation
    from frostfork.preload import Installed

log = logging.getLogger("frostfork")

_SAVE_SECONDS = 10.0  # between writings to the file; what was learned since is lost if the zygote is killed
_LOCK_SECONDS = 1.0


class Memory:
    """Of one zygote. What it records goes to the heritage when asked, and from there to the file now and then."""

    def __init__(
        self, heritage: Heritage, path: str | None, seconds_kept: float, installed: Installed
    ) -> None:
        self._heritage = heritage
        self._file = None if path is None else LedgerFile(path, lock_seconds=_LOCK_SECONDS)
        self._seconds_kept = seconds_kept
        self._installed = installed
        self._watch = InstalledWatch()
        self._new = Ledger()  # not handed down yet
        self._unsaved = Ledger()  # not in the file yet
        self._next_save = time.monotonic()
        self._handed: set[str] = set()  # modules whose verdicts have been handed down, or came so

    def inherit(self) -> tuple[Ledger, dict[str, Verdict]]:
        """All that is known: from the zygotes before, or else from the file.

        A verdict stands as long as its distribution is what it was: another trial would be made in an equal process,
        since every zygote begins from the same root.
        """
        whole = self._heritage.exchange(Estate(Ledger(), {})) or Estate(Ledger(), {})
        if is_empty(whole.ledger) and self._file is not None:
            try:
                remembered = Estate(self._file.load(), {})
                whole = self._heritage.exchange(remembered) or remembered
            except (OSError, LedgerError) as error:
                log.warning("frostfork begins to learn anew: %s", error)
        whole.ledger.forget(time.time() - self._seconds_kept)
        return whole.ledger, self._standing(whole)

    def record(self, seen: Observation, source: str, *, goes_on: bool) -> None:
        """goes_on: more of a worker that was recorded before."""
        record(self._new, seen, source, goes_on=goes_on)

    def has_news(self) -> bool:
        """Whether there is something to exchange with other zygotes."""
        return not is_empty(self._new) or self._heritage.has_news()

    def hand_down(self, verdicts: dict[str, Verdict]) -> tuple[Ledger, dict[str, Verdict]] | None:
        """Add what is new to the heritage; all that is known then. None: not at the moment."""
        whole = self._heritage.exchange(Estate(self._new, self._own(verdicts)))
        if whole is None:
            return None
        self._unsaved.merge(self._new)
        self._new = Ledger()
        self._handed.update(verdicts)
        return whole.ledger, self._standing(whole)

    def tried_here(self, verdicts: dict[str, Verdict]) -> int:
        return len(verdicts.keys() - self._handed)

    def changes(self) -> list[str]:
        """Distributions that canaries tried, and that are something else on disk by now."""
        return [str(change) for change in self._watch.changes()]

    def _own(self, verdicts: dict[str, Verdict]) -> dict[str, tuple[Verdict, Mark]]:
        found = {}
        new = {
            name: verdict
            for name, verdict in verdicts.items()
            if name not in self._handed and not was_killed(verdict)  # the next zygote may have more luck
        }
        self._watch.add({self._installed.distribution(name) for name in new})
        for name, verdict in new.items():
            mark = self._watch.mark(self._installed.distribution(name))
            if mark is not None:
                found[name] = verdict, mark
        return found

    def _standing(self, whole: Estate) -> dict[str, Verdict]:
        marks: dict[Mark, bool] = {}
        for _, mark in whole.tried.values():
            if mark not in marks:
                marks[mark] = unchanged(mark)
        found = {name: verdict for name, (verdict, mark) in whole.tried.items() if marks[mark]}
        self._handed.update(found)
        return found

    # --- the file

    def save_if_due(self) -> float | None:
        """The seconds until it is; None if there is nothing to write."""
        left = self._next_save - time.monotonic()
        if self._file is None or is_empty(self._unsaved):
            return None
        if left > 0:
            return left
        self.save()
        return None

    def save(self) -> None:
        """Never raises: what could not be written is tried again later."""
        self._next_save = time.monotonic() + _SAVE_SECONDS
        if self._file is None or is_empty(self._unsaved):
            return
        try:
            self._file.add(self._unsaved, forget_before=time.time() - self._seconds_kept)
        except (OSError, LedgerError) as error:
            log.warning("frostfork could not write down what it learned: %s", error)
        else:
            self._unsaved = Ledger()


def record(ledger: Ledger, seen: Observation, source: str, *, goes_on: bool) -> None:
    """A worker counts once, however often its journal is read."""
    ledger.record(seen, source)
    if goes_on:
        uncount(ledger, source)


def uncount(ledger: Ledger, source: str) -> None:
    ledger.children -= 1
    ledger.sources[source].children -= 1
