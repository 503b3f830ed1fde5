# SPDX-License-Identifier: Apache-2.0
"""The Celery adapter. Importing it imports nothing of Celery: that waits for the call."""

from __future__ import annotations

import gc
from typing import Any

__all__ = ["keep_parent_frozen"]

# Bound once, as in frostfork.fork.
_freeze = gc.freeze


def keep_parent_frozen() -> None:
    """Freeze the parent of Celery's prefork pool once everything is loaded, and leave it so.

    Freezing in the children is not enough here. Celery collects in the parent before it forks each replacement
    (celery/concurrency/asynpool.py), and a collection writes to every object that it visits: the parent would copy
    nearly all its memory, and the children forked before, frozen or not, would be left with copies of their own.
    Frozen, the parent visits only what it made since. It is not thawed again, so the leak of freezing and unfreezing
    over and over does not arise: what is never collected is what was garbage at that one moment.

    Airflow's provider freezes before the configured imports are loaded and thaws in its worker_ready. Receivers
    are called in the order they were connected, so ours is connected only when the provider's surely is.
    """
    from celery import signals

    def on_worker_init(**_: Any) -> None:
        _freeze()
        signals.worker_ready.connect(on_worker_ready, weak=False)

    def on_worker_ready(**_: Any) -> None:
        _freeze()

    signals.worker_init.connect(on_worker_init, weak=False)
