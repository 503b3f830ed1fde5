# SPDX-License-Identifier: Apache-2.0
"""When a run passes from learning to timing to sampling memory, told from the parses that have finished.

A *round* is as many finished parses as there are files, in the order in which they finished. Airflow's own rounds
overlap: the files in progress when its queue runs empty sit out the next queue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

LEAST_LEARNING_ROUNDS = 2
MOST_LEARNING_ROUNDS = 10
MEMORY_ROUNDS = 2


def round_of(paths: Sequence[str]) -> int:
    """How many rounds have been finished."""
    return len(paths) // max(1, len(set(paths)))


def learning_rounds(files: int, settled_from: int | None) -> int:
    """How many rounds come before the timed ones: all up to the parse after which nothing was left to learn.

    None: there still is. Whoever never comes to an end is timed as it is.
    """
    if settled_from is None or not files:
        return MOST_LEARNING_ROUNDS
    return min(max(LEAST_LEARNING_ROUNDS, -(-settled_from // files)), MOST_LEARNING_ROUNDS)


def sampling_due(paths: Sequence[str], rounds: int, settled_from: int | None) -> bool:
    """Say whether the timed rounds are over, so that a sampler disturbs no figure any more.

    A file that sat out the timed rounds is waited for, but for one round at most: it may never finish.
    """
    files = len(set(paths))
    learning = learning_rounds(files, settled_from)
    timed_end = (learning + rounds) * files
    if not files or len(paths) < timed_end:
        return False
    timed = set(paths[learning * files :])
    return len(timed) == files or len(paths) >= timed_end + files


def sampling_done(finished: int, sampled: int, files: int) -> bool:
    """Say whether the sampler has seen enough: so many parses since it started, of so many files a sample.

    A file whose child is never met alive, or never finishes, is waited for as long again, and no longer.
    """
    enough = MEMORY_ROUNDS * files
    return finished >= 2 * enough or (finished >= enough and sampled >= files)
