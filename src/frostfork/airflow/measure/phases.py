# SPDX-License-Identifier: Apache-2.0
"""When a run passes from learning to timing to sampling memory, told from the parses that have finished.

A *round* is as many finished parses as there are files, in the order in which they finished. Airflow's own rounds
overlap: the files in progress when its queue runs empty sit out the next queue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

LEARNING_ROUNDS = 2
MEMORY_ROUNDS = 2


def round_of(paths: Sequence[str]) -> int:
    """How many rounds have been finished."""
    return len(paths) // max(1, len(set(paths)))


def sampling_due(paths: Sequence[str], rounds: int) -> bool:
    """Say whether the timed rounds are over, so that a sampler disturbs no figure any more.

    A file that sat out the timed rounds is waited for, but for one round at most: it may never finish.
    """
    files = len(set(paths))
    timed_end = (LEARNING_ROUNDS + rounds) * files
    if not files or len(paths) < timed_end:
        return False
    timed = set(paths[LEARNING_ROUNDS * files :])
    return len(timed) == files or len(paths) >= timed_end + files


def sampling_done(finished: int, sampled: int, files: int) -> bool:
    """Say whether the sampler has seen enough: so many parses since it started, of so many files a sample.

    A file whose child is never met alive, or never finishes, is waited for as long again, and no longer.
    """
    enough = MEMORY_ROUNDS * files
    return finished >= 2 * enough or (finished >= enough and sampled >= files)
