# SPDX-License-Identifier: Apache-2.0
"""What an allowed module may not bring along into the parent."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from frostfork.preload.patterns import matches


class ForbiddenImport(BaseException):
    """Ends an import from within.

    Not an Exception: `except ImportError` around an optional import must not see it, for a library that takes the
    denied module for missing would go on so in every child.
    """

    def __init__(self, module: str, why: str) -> None:
        super().__init__(f"{module}, {why}")
        self.module = module


class ImportGuard:
    """While it lasts, this thread imports nothing that is denied or that the user's folders have a name for.

    The policy is asked for the modules that children named; whatever those import in turn is asked for here.
    """

    def __init__(self, deny: Iterable[str], local_names: frozenset[str]) -> None:
        self._deny = tuple(deny)
        self._local_names = local_names
        self._thread = threading.get_ident()

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Called by importlib before its own finders; None lets those answer."""
        if threading.get_ident() != self._thread:
            return
        if name.partition(".")[0] in self._local_names:
            raise ForbiddenImport(name, "a name that the DAG folder has too")
        if matches(name, self._deny) and self._is_there(name, path, target):
            raise ForbiddenImport(name, "which is denied")

    def _is_there(self, name: str, path: Any, target: Any) -> bool:
        """What nobody can find fails anyhow, and whoever imports it where it may be missing is prepared for that."""
        others = [finder for finder in sys.meta_path if finder is not self]
        return any(finder.find_spec(name, path, target) is not None for finder in others)

    def __enter__(self) -> ImportGuard:
        sys.meta_path.insert(0, self)  # importlib asks for find_spec alone
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self in sys.meta_path:  # the import may have rearranged it
            sys.meta_path.remove(self)


def drop_orphans(known: int) -> None:
    """Drop the parts of packages whose own import failed: Python removes the package alone from sys.modules.

    known: how many modules there were before.
    """
    new = list(itertools.islice(reversed(sys.modules), max(0, len(sys.modules) - known)))
    for name in new:
        if name.partition(".")[0] not in sys.modules:
            del sys.modules[name]


def described(error: BaseException) -> str:
    """Its type and message."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # its __str__ is the module's code, too
        return type(error).__name__
