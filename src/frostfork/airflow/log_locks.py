# SPDX-License-Identifier: Apache-2.0
"""Whether a log line is being written at this moment.

structlog holds a lock of each stream meanwhile, which is no RLock. A signal handler that logs, as Airflow's do, runs in
the main thread in the middle of whatever that is at: of such a line, and then it waits for its own thread for ever.
"""

from __future__ import annotations

try:
    from structlog._output import WRITE_LOCKS  # type: ignore[import-not-found]  # Airflow has it
except ImportError:  # another structlog
    WRITE_LOCKS = {}


def is_writing() -> bool:
    """Also of another thread's line, which is over soon."""
    return any(lock.locked() for lock in list(WRITE_LOCKS.values()))
