# SPDX-License-Identifier: Apache-2.0
"""Numbers at the edge of what a pool and its system can take."""

from __future__ import annotations

import math
import subprocess
import sys
import textwrap

import pytest

from frostfork import ConfigurationError, ForkPool
from tests.integration import pool_work as work
from tests.integration.pool_work import WAIT


def said_by(program: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True, text=True, timeout=WAIT, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    "long",
    [
        {"timeout": math.inf},
        {"timeout": 4e6},
        {"hard_timeout": 1e300},
        {"hard_timeout": math.inf},
        {"ready_timeout": 1e10},
        {"ready_timeout": math.inf, "heartbeat": math.inf},
    ],
)
def test_times_may_be_as_long_as_one_likes(long: dict[str, float]) -> None:
    """Longer than poll() can wait, or than a frame can say."""
    with ForkPool(1, **long) as pool:
        assert [pool.submit(work.double, each).result(WAIT) for each in range(3)] == [0, 2, 4]
        assert list(pool.map(work.double, range(20), chunksize=3)) == [2 * each for each in range(20)]


def test_a_soft_timeout_of_months_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"timeout is 10000000.0; .* above 0 to 4,000,000$"):
        ForkPool(1, timeout=1e7)


def test_more_workers_than_there_can_be_processes_are_refused() -> None:
    with pytest.raises(ValueError, match="max_workers must be 4194304 at most"):
        ForkPool(1 << 70)


def test_a_pool_that_cannot_be_made_leaves_nothing() -> None:
    """The board does not fit into what may be written: a file's size is limited."""
    said = said_by(
        """
        import os, resource
        from frostfork import ForkPool
        before = os.listdir("/proc/self/fd")
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, hard))
        try:
            ForkPool(10_000)
        except OSError as error:
            print(error.strerror)
        print(os.listdir("/proc/self/fd") == before)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            print("no child")
        """
    )
    assert said == ["File too large", "True", "no child"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"chunksize": "a"}, "chunksize must be a whole number, not 'a'"),
        ({"chunksize": 1.5}, "chunksize must be a whole number, not 1.5"),
        ({"chunksize": 0}, "chunksize must be >= 1"),
        ({"timeout": "a"}, "timeout must be None or seconds, not 'a'"),
    ],
)
def test_what_map_is_told_wrongly(wrong: dict[str, object], said: str) -> None:
    with ForkPool(1) as pool, pytest.raises((TypeError, ValueError), match=f"^{said}"):
        pool.map(abs, [1], **wrong)
