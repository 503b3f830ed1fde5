# SPDX-License-Identifier: Apache-2.0
"""Make a forked process its own."""

from __future__ import annotations

import random
import signal
from collections.abc import Collection

from frostfork._confine import silence


def become_worker(name: str, generation: int, keep: Collection[int]) -> None:
    signal.set_wakeup_fd(-1)
    _default_handlers()
    silence({0, 1, 2, *keep})
    random.seed()
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def become_zygote(name: str, generation: int, keep: Collection[int]) -> None:
    become_worker(name, generation, keep)


def _default_handlers() -> None:
    for number in range(1, signal.NSIG):
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
