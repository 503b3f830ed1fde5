# SPDX-License-Identifier: Apache-2.0
"""What the zygote of a pool holds beside the user's template: the code that workers run."""

from __future__ import annotations

import sys
from collections.abc import Collection

from frostfork.warmup import warmup
from frostfork.zygote import Template

# What is quick, a few hundredths of a second. A template that loads much does more, in its begin().
_STEPS = ("reserve", "drain_heap", "immortalize", "drain_pools")


class PoolTemplate(Template):
    """Around the user's own: its hooks and public methods are reached through this."""

    def __init__(self, template: Template | None) -> None:
        self._is_bare = template is None
        self._template = template or Template()
        self.keep_fds = self._template.keep_fds
        self.keep_fds = self._template.keep_fds

    def begin(self) -> None:
        self.rehearse()  # imports what workers need
        self._template.begin()
        self.writes_nothing = self._is_bare or self._template.writes_nothing
        if self._is_bare:
            warmup(steps=_STEPS)

    def rehearse(self) -> None:
        from frostfork.pool.rehearsal import rehearse

        rehearse()
        self._template.rehearse()

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
        self.watches_birth = self._template.watches_birth

    def descriptors(self, name: str) -> Collection[int]:
        return self._template.descriptors(name)

    def not_forked(self, name: str) -> None:
        self._template.not_forked(name)

    def born(self) -> None:
        self._template.born()

    def in_worker(self, name: str) -> None:
        self._template.in_worker(name)

    def ended(self, name: str, pid: int, code: int | None) -> None:
        self._template.ended(name, pid, code)

    def succeeded(self) -> None:
        self._template.succeeded()

    def parts(self) -> tuple[object, ...]:
        return (self, *self._template.parts())

    def idle(self) -> float | None:
        return self._template.idle()

    def __getattr__(self, name: str) -> object:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._template, name)
