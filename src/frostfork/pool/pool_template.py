# SPDX-License-Identifier: Apache-2.0
"""What the zygote of a pool holds beside the user's template: the code that workers run."""

from __future__ import annotations

import sys
from collections.abc import Collection

from frostfork.zygote import Template


class PoolTemplate(Template):
    """Around the user's own: its hooks and public methods are reached through this."""

    def __init__(self, template: Template | None) -> None:
        self._template = template or Template()

    def begin(self) -> None:
        import frostfork.pool.worker  # noqa: F401 - so that workers need not

        self._template.begin()

    def main_names(self) -> frozenset[str]:
        """What __main__ has here."""
        main = sys.modules.get("__main__")
        return (
            frozenset()
            if main is None
            else frozenset(name for name in vars(main) if callable(getattr(main, name, None)))
        )

    def before_fork(self, name: str) -> None:
        self._template.before_fork(name)

    def descriptors(self, name: str) -> Collection[int]:
        return self._template.descriptors(name)

    def in_worker(self, name: str) -> None:
        self._template.in_worker(name)

    def ended(self, name: str, pid: int, code: int) -> None:
        self._template.ended(name, pid, code)

    def idle(self) -> float | None:
        return self._template.idle()

    def __getattr__(self, name: str) -> object:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._template, name)
