# SPDX-License-Identifier: Apache-2.0
"""What the user of a pool wants to be called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from frostfork.pool.engine import log


class Hooks:
    """By their names. A hook that fails is logged, and the pool goes on."""

    def __init__(self, hooks: dict[str, Callable[..., object] | None], close: Callable[[], object]) -> None:
        self._hooks = hooks
        self._close = close

    def call(self, name: str, *args: Any) -> None:
        hook = self._hooks.get(name)
        if hook is not None:
            try:
                hook(*args)
            except Exception:
                log.exception("the hook %s failed", name)

    def close(self) -> None:
        self._close()
