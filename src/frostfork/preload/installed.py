# SPDX-License-Identifier: Apache-2.0
"""Which code was installed, and by which distribution."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from frostfork.preload.patterns import ancestors


@dataclass(frozen=True)
class Installed:
    """Where installed code lies: folders of site-packages and of the standard library, and their top-level names.

    An editable install, a DAG folder, a zip file or a script's folder is none of these: its files are edited, and a
    parent that has them imported would go on with the old text.

    distributions: by module or package, the name of the distribution that it came with, and all that lies in it. None
    for a package that several share, as those of google.cloud do: they are named at what lies in that.
    """

    folders: tuple[str, ...]
    names: frozenset[str]
    distributions: Mapping[str, str | None] = field(default_factory=dict, hash=False, repr=False)

    def holds(self, module: str, origins: Iterable[str]) -> bool:
        """Whether a module of this name, found at these places, belongs to an installed distribution.

        No place is a namespace package's; "?" is the place of something that is no module, and nobody's.
        """
        return module.partition(".")[0] in self.names and self.contains(origins)

    def contains(self, origins: Iterable[str]) -> bool:
        """Whether all these places are where installed code lies; so of no place at all."""
        return all(origin in ("built-in", "frozen") or below(origin, self.folders) for origin in origins)

    def distribution(self, module: str) -> str | None:
        """The distribution that a module came with; None for the standard library and for what nobody installed."""
        for name in (module, *ancestors(module)):
            if name in self.distributions:
                return self.distributions[name]
        return None


def below(path: str, folders: Iterable[str]) -> bool:
    """Whether a path lies in one of these folders, at any depth."""
    return any(path.startswith(folder.rstrip(os.sep) + os.sep) for folder in folders)
