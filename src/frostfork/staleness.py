# SPDX-License-Identifier: Apache-2.0
"""Notices that a distribution changed on disk after this process imported from it.

A parent that goes on with the old modules gives them to every child, which imports the rest from the new files. An
installer replaces a distribution's metadata folder, or the RECORD in it, so one status call for each distribution
tells. It is made now and then, in the parent alone: a fork costs nothing more.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

CHECK_SECONDS = 5.0
PYTHON = ""  # the name under which the interpreter and its standard library are watched

# Which file is there, and when it was last written; None if it is gone.
_Mark = tuple[int, int, int, int] | None
Mark = tuple[str, _Mark]  # with the path that was looked at


class DistributionChange(NamedTuple):
    """One distribution that is no longer what was imported. after: None if it is gone."""

    name: str
    before: str
    after: str | None

    def __str__(self) -> str:
        if self.name == PYTHON:
            return f"Python {self.before} itself was replaced"
        if self.after is None:
            return f"{self.name} {self.before} was removed"
        if self.after == self.before:
            return f"{self.name} {self.before} was installed again"
        return f"{self.name} {self.before} became {self.after}"


class InstalledWatch:
    """Watches the distributions that it was told of. seconds: `changes()` looks no more often than that."""

    def __init__(self, *, seconds: float = CHECK_SECONDS) -> None:
        self._seconds = seconds
        self._next = 0.0
        self._missing: set[str] = set()  # at the last look
        self._marks: dict[
            str, tuple[str, str, _Mark]
        ] = {}  # by name: version, path that is looked at, its state

    def add(self, distributions: Iterable[str | None]) -> None:
        """Take these as they are on disk now; None is the standard library. Known ones keep their first state."""
        for name in {PYTHON if name is None else name for name in distributions} - self._marks.keys():
            found = _python() if name == PYTHON else _installed(name)
            if found is not None:
                version, path = found
                self._marks[name] = version, path, _mark(path)

    def mark(self, distribution: str | None) -> Mark | None:
        """What unchanged() tells by whether it is still what it was when it was added, in another process as well."""
        name = PYTHON if distribution is None else distribution
        return None if name not in self._marks else self._marks[name][1:]

    def changes(self) -> list[DistributionChange]:
        """What changed since it was added, each once: from then on its new state is the known one."""
        now = time.monotonic()
        if now < self._next:
            return []
        self._next = now + self._seconds
        found = []
        for name, (version, path, mark) in list(self._marks.items()):
            if _mark(path) == mark:
                continue
            importlib.invalidate_caches()  # metadata's too, which otherwise trusts a folder's time of change
            renewed = _python() if name == PYTHON else _installed(name)
            if renewed is not None:
                self._marks[name] = *renewed, _mark(renewed[1])
                self._missing.discard(name)
            elif name in self._missing:
                del self._marks[name]
                self._missing.discard(name)
            else:  # an upgrade takes the old version away first: look again next time
                self._missing.add(name)
                continue
            found.append(DistributionChange(name, version, None if renewed is None else renewed[0]))
        return found


def unchanged(mark: Mark) -> bool:
    path, state = mark
    return _mark(path) == state


def _mark(path: str) -> _Mark:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def _installed(name: str) -> tuple[str, str] | None:
    """The version of a distribution, and the file or folder that an installer replaces with it."""
    from importlib import metadata

    try:
        distribution = metadata.distribution(name)
        version = distribution.version
    except (metadata.PackageNotFoundError, OSError, KeyError, TypeError, ValueError):
        # Half removed, half installed, or not in UTF-8.
        return None
    folder = getattr(distribution, "_path", None)
    if version is None or folder is None:
        return None
    record = os.path.join(folder, "RECORD")
    return version, record if os.path.exists(record) else str(folder)


def _python() -> tuple[str, str]:
    return sys.version.split()[0], os.path.realpath(os.__file__)
