# SPDX-License-Identifier: Apache-2.0
"""The code of a child, noted from its fork on."""

from __future__ import annotations

import functools
import os

import pytest

from frostfork import Journal, Observation
from frostfork.airflow.watching import Watching
from frostfork.observe import watch_code
from tests.integration.forking import run_child

WATCHING = Watching()  # one for all tests: its hook cannot be taken back


def at_start() -> None:
    """What a process does between its fork and its work."""


def at_work() -> None:
    """The work."""


def start_and_work(journal: Journal) -> list[str]:
    at_start()
    at_work()
    WATCHING.finish(journal)
    return names(journal)


def names(journal: Journal) -> list[str]:
    code = Observation.from_journal(journal).hot_code
    return [name for file, _, name in code if file == __file__ and name in ("at_start", "at_work", "hooked")]


def hooked() -> None:
    """At the fork itself."""


# Registered after WATCHING, so it runs after it.
os.register_at_fork(after_in_child=hooked)


def test_a_child_that_is_chosen_notes_from_the_fork_on() -> None:
    journal = Journal()
    with WATCHING.next_fork(True):
        assert run_child(functools.partial(start_and_work, journal), os.fork) == [
            "hooked",
            "at_start",
            "at_work",
        ]
    journal.close()


@pytest.mark.parametrize("within", [True, False])
def test_others_note_nothing(within: bool) -> None:
    journal = Journal()
    if within:
        with WATCHING.next_fork(False):
            assert run_child(functools.partial(start_and_work, journal), os.fork) == []
    else:
        assert run_child(functools.partial(start_and_work, journal), os.fork) == []
    journal.close()


def test_what_a_child_forks_leaves_its_record_alone() -> None:
    journal = Journal()

    def child() -> list[str]:
        run_child(functools.partial(start_and_work, journal), os.fork)
        at_work()
        WATCHING.finish(journal)
        return names(journal)

    with WATCHING.next_fork(True):
        assert run_child(child, os.fork) == ["hooked", "at_work"]
    journal.close()


def test_the_parents_own_notes_end_in_its_children_alone() -> None:
    journal, watch = Journal(), watch_code()
    assert watch.start()
    try:
        with WATCHING.next_fork(False):
            assert run_child(functools.partial(start_and_work, journal), os.fork) == []
        at_work()
    finally:
        found = [name for file, _, name in watch.finish() if file == __file__]
    assert "at_work" in found
    assert "at_start" not in found
    journal.close()
