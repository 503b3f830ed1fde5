# SPDX-License-Identifier: Apache-2.0
"""What the DAG processor's children imported, kept in a file from one start to the next.

What is new goes to the file once a minute and at the end: a processor that is killed loses a minute's learning. Several
processors may share a file, so each adds what it saw and none writes what it read.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING

from frostfork.errors import LedgerError
from frostfork.ledger_file import LedgerFile
from frostfork.preload import Ledger

if TYPE_CHECKING:
    from frostfork.airflow.settings import Settings
    from frostfork.observe import Observation

log = logging.getLogger("frostfork.airflow")

_SECONDS_BETWEEN = 60.0
_LOCK_SECONDS = 1.0  # while it waits for another processor it serves no child, and a minute later is as good
_SECONDS_BETWEEN_FORGETTING = 3600.0
_DAY = 86_400.0


def ledger_path(settings: Settings) -> str | None:
    """The file that [frostfork] ledger names; None if nothing is to be kept."""
    if not settings.ledger:
        return None
    from airflow.configuration import AIRFLOW_HOME

    return os.path.join(AIRFLOW_HOME, os.path.expanduser(settings.ledger))


class Remembering:
    """The ledger of one DAG processor, and its file."""

    def __init__(self, path: str | None, days: int, *, asks_only: bool = False) -> None:
        """asks_only: leave the file as it is, and raise LedgerError where it is not to be used."""
        self._file = None if path is None else LedgerFile(path, lock_seconds=_LOCK_SECONDS)
        self._seconds_kept = days * _DAY
        self._new = Ledger()
        self._next = time.monotonic() + _SECONDS_BETWEEN
        self._next_forgetting = time.monotonic() + _SECONDS_BETWEEN_FORGETTING
        self.ledger = Ledger()
        if self._file is not None:
            try:
                self.ledger = self._file.peek() if asks_only else self._file.load()
            except (OSError, LedgerError) as error:
                if asks_only:
                    raise
                log.warning("frostfork begins to learn anew: %s", error)
            self.ledger.forget(time.time() - self._seconds_kept)

    def record(self, observation: Observation, source: str) -> None:
        """Remember one more child, whom the ledger knows already."""
        if time.monotonic() >= self._next_forgetting:
            self._next_forgetting = time.monotonic() + _SECONDS_BETWEEN_FORGETTING
            self.ledger.forget(time.time() - self._seconds_kept)
        if self._file is None:
            return
        self._new.record(observation, source)
        if time.monotonic() >= self._next:
            self.save()

    def save(self) -> None:
        """Add what is new to the file. Never raises: what could not be written is tried again a minute later."""
        self._next = time.monotonic() + _SECONDS_BETWEEN
        if self._file is None or not self._new.children:
            return
        try:
            self._file.add(self._new, forget_before=time.time() - self._seconds_kept)
        except (OSError, LedgerError) as error:
            log.warning("frostfork could not write down what it learned: %s", error)
        else:
            self._new = Ledger()
