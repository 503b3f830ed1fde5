# SPDX-License-Identifier: Apache-2.0
"""Which modules the parent imports: one question, answered for one module at a time, with the reason."""

from __future__ import annotations

import enum
import fnmatch
import os
from collections.abc import Iterable
from dataclasses import dataclass

from frostfork.preload.ledger import ModuleRecord

# Airflow gives a DAG file's module a name made of its path; a program's own script is nobody else's module.
_NEVER = ("unusual_prefix_*", "__main__", "__mp_main__")


class PreloadMode(str, enum.Enum):
    """approved: what the user lists. learned: all that children import from distributions. off: nothing.

    In both cases only after a child imported the module without error.
    """

    APPROVED = "approved"
    LEARNED = "learned"
    OFF = "off"


@dataclass(frozen=True)
class Installed:
    """Where installed code lies: folders of site-packages and of the standard library, and their top-level names.

    An editable install, a DAG folder, a zip file or a script's folder is none of these: its files are edited, and a
    parent that has them imported would go on with the old text.
    """

    folders: tuple[str, ...]
    names: frozenset[str]

    def holds(self, module: str, origins: Iterable[str]) -> bool:
        """Whether a module of this name, found at these places, belongs to an installed distribution.

        No place is a namespace package's; "?" is the place of something that is no module, and nobody's.
        """
        return module.partition(".")[0] in self.names and all(
            origin in ("built-in", "frozen") or _below(origin, self.folders) for origin in origins
        )


@dataclass(frozen=True)
class Decision:
    """The answer for one module."""

    preload: bool
    reason: str


@dataclass(frozen=True)
class PreloadPolicy:
    """Decides whether a module is worth and safe importing in the parent.

    approved, deny: patterns such as "pandas" (with all its submodules) or "google.cloud.*". deny wins over all.
    excluded: folders of the user's own code, should they lie inside an installed folder.
    """

    installed: Installed
    mode: PreloadMode = PreloadMode.LEARNED
    approved: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()

    def decide(self, module: ModuleRecord, local_names: frozenset[str] = frozenset()) -> Decision:
        """local_names: top-level names that the user's own folders define now, which must stay importable."""
        if self.mode is PreloadMode.OFF:
            return Decision(False, "preload is off")
        if matches(module.name, _NEVER):
            return Decision(False, "the name of a script or DAG file")
        if matches(module.name, self.deny):
            return Decision(False, "denied by configuration")
        if module.children == 0:
            return Decision(False, f"failed in a child: {module.last_error}")
        if module.threads:
            return Decision(False, "its import starts a thread, which forked children would not have")
        if module.name.partition(".")[0] in local_names:
            return Decision(False, "the DAG folder has a file or folder of this name")
        if any(_below(origin, self.excluded) for origin in module.origins):
            return Decision(False, "lies in a folder of the user's own code")
        if not self.installed.holds(module.name, module.origins):
            return Decision(False, "not from an installed distribution")
        if self.mode is PreloadMode.APPROVED:
            if matches(module.name, self.approved):
                return Decision(True, "approved by configuration")
            return Decision(False, "not approved by configuration")
        return Decision(True, "imported by a child from an installed distribution")


def matches(module: str, patterns: Iterable[str]) -> bool:
    """Whether a pattern names the module or a package above it; `*` and `?` as in file names."""
    parts = module.split(".")
    names = [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns for name in names)


def _below(path: str, folders: Iterable[str]) -> bool:
    return any(path.startswith(folder.rstrip(os.sep) + os.sep) for folder in folders)
