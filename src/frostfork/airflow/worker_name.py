# SPDX-License-Identifier: Apache-2.0
"""The name of a worker that parses a file: by it the zygote knows the file, and `ps` shows it.

A name has a limit in length, which paths have not. So a file gets a number, and the zygote is told of it once.
"""

from __future__ import annotations

from typing import NamedTuple

_MOST_SHOWN = 150


class WorkerName(NamedTuple):
    """serial: no two workers have the same. number: of the file. shown: the end of its path, for people."""

    serial: int
    number: int
    shown: str

    def __str__(self) -> str:
        return f"{self.serial} {self.number} {self.shown[-_MOST_SHOWN:]}"

    @classmethod
    def read(cls, name: str) -> WorkerName:
        """The inverse of str()."""
        serial, number, shown = name.split(" ", 2)
        return cls(int(serial), int(number), shown)
