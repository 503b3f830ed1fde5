# SPDX-License-Identifier: Apache-2.0
"""How a worker's end is told."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from frostfork.errors import WorkerDied

if TYPE_CHECKING:
    from frostfork.pool.link import Link


def signal_name(code: int | None) -> str | None:
    if code is None or code >= 0:
        return None
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def describe(code: int | None) -> str:
    if code is None:
        return "ended; nobody could tell how"
    name = signal_name(code)
    return f"was ended by {name}" if name else f"exited with code {code}"


def died(link: Link, code: int | None) -> WorkerDied:
    tail = link.tail.decode(errors="replace").strip()
    text = f"worker {link.name} (process {link.pid}) {describe(code)} while it ran this task"
    if link.killed:
        text += f": {link.killed}"
    if tail:
        text += "; the end of its standard error:\n" + tail
    error = WorkerDied(text)
    error.pid, error.name, error.code = link.pid, link.name, code
    error.signal, error.stderr_tail = signal_name(code), tail
    return error
