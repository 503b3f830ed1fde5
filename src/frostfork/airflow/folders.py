# SPDX-License-Identifier: Apache-2.0
"""The folders of the users' own code: nothing from there may be imported in the parent, by path or by name."""

from __future__ import annotations

import os
import time
import zipfile

_SECONDS_BETWEEN_LOOKS = 1.0
_TIMES_ITS_TIME = 50


class UserFolders:
    """DAG bundles and plugins, as they become known."""

    def __init__(self) -> None:
        self._folders: set[str] = set()
        self._names: frozenset[str] = frozenset()
        self._until = 0.0  # so long they are taken for what is there
        self.paths: tuple[str, ...] = ()  # with their real names, where those differ

    def add(self, folder: str) -> bool:
        """Returns whether it was unknown."""
        if folder in self._folders:
            return False
        self._folders.add(folder)
        self._until = 0.0
        self.paths = tuple(sorted({folder, os.path.realpath(folder), *self.paths}))
        return True

    def hold(self, file: str) -> bool:
        return any(file.startswith(folder + os.sep) for folder in self.paths)

    def names(self) -> frozenset[str]:
        """Names that `import` could find there, at any depth, since DAG files extend sys.path.

        A parent that had an installed module of such a name would hide the user's from all children. Looked for at most
        once a second, and in large folders less often: it takes no more than a fiftieth of the time.
        """
        begun = time.monotonic()
        if begun >= self._until:
            self._names = self._find()
            done = time.monotonic()
            self._until = done + max(_SECONDS_BETWEEN_LOOKS, _TIMES_ITS_TIME * (done - begun))
        return self._names

    def _find(self) -> frozenset[str]:
        names: set[str] = set()
        for folder in self._folders:
            seen: set[str] = set()
            # Links are followed, as Airflow does: git-sync shows a repository through one. A link may lead back up.
            for parent, folders, files in os.walk(folder, followlinks=True):
                real = os.path.realpath(parent)
                if real in seen:
                    folders.clear()
                    continue
                seen.add(real)
                names.update(folders)
                for file in files:
                    if file.endswith(".zip"):
                        names.update(_names_in_zip(os.path.join(parent, file)))
                names.update(
                    file.partition(".")[0] for file in files if file.endswith((".py", ".pyc", ".so"))
                )
        return frozenset(names)


def _names_in_zip(path: str) -> set[str]:
    """Top-level names in an archive, which Airflow puts first on sys.path when it parses it."""
    # To open a pipe would wait for its other end.
    if not os.path.isfile(path):
        return set()
    try:
        with zipfile.ZipFile(path) as archive:
            tops = {name.partition("/")[0] for name in archive.namelist()}
    except Exception:
        return set()
    return {top.partition(".")[0] for top in tops}
