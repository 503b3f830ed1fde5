# SPDX-License-Identifier: Apache-2.0
"""The entry of a parsing child: Airflow's own, observed."""

from __future__ import annotations

import contextlib
import itertools
import sys
from typing import TYPE_CHECKING

from frostfork.observe import observe

if TYPE_CHECKING:
    from collections.abc import Callable

    from frostfork.airflow.judging import Judging
    from frostfork.airflow.watching import Watching
    from frostfork.journal import Journal


def run_observed(
    target: Callable[[], None], journal: Journal, known: int, watching: Watching, judging: Judging
) -> None:
    """Run Airflow's entry and write down what it imports. known: how many modules the parent had when it forked."""
    # Between the fork and this entry Airflow sets up the child's logging, and imports modules for that in every child.
    # Newest first, and no further: to list all names would write the reference count of each, 1,200 pages of them.
    # A parse that cannot be observed is parsed all the same.
    with contextlib.suppress(Exception):
        newest = itertools.islice(reversed(sys.modules), max(0, len(sys.modules) - known))
        for name in reversed(list(newest)):
            origin = getattr(getattr(sys.modules[name], "__spec__", None), "origin", None)
            journal.write_import(name, origin or "")
    with contextlib.ExitStack() as stack:
        stack.callback(judging.finish, journal)
        stack.callback(watching.finish, journal)
        with contextlib.suppress(Exception):
            stack.enter_context(observe(journal, pages=False))
        target()
