# SPDX-License-Identifier: Apache-2.0
"""Held blocks of Python's own allocator: what a child copies, what is held, and who is refused."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.integration.forking import run_script

# 5,000 free blocks of 64 bytes, each among seven in use; a child that fills 2,000 of them; how many pages it copied.
HOLES = """
    import json, os, sys
    import frostfork
    from frostfork.steps.drain_pools import drain_pools, release

    class Thing:
        __slots__ = ("a", "b", "c", "d")

    def copied():
        into_parent, from_child = os.pipe()
        pid = frostfork.fork(baseline=True)
        if pid == 0:
            baseline = frostfork.child_baseline()
            kept = [None] * 2000
            before = baseline.compare().unshared
            for at in range(2000):
                kept[at] = Thing()
            os.write(from_child, b"%d" % (baseline.compare().unshared - before))
            os._exit(0)
        os.close(from_child)
        os.waitpid(pid, 0)
        answer = os.read(into_parent, 100)
        os.close(into_parent)
        return int(answer)

    made = [Thing() for _ in range(40_000)]
    kept = [thing for at, thing in enumerate(made) if at % 8]
    del made
"""


def test_a_child_makes_objects_on_pages_of_its_own() -> None:
    found = run_script(
        HOLES
        + """
    without = copied()
    outcome = drain_pools(most=1 << 24)
    held = copied()
    release()
    print(json.dumps([without, held, copied(), outcome.count, outcome.bytes_held]))
    """
    )
    without, held, released, blocks, size = found
    assert without > 150, "else there were no holes to begin with"
    assert held < without / 2
    assert released > without / 2, "what is given back is free again"
    assert blocks > 4_000
    assert size > blocks * 16


def test_no_more_is_held_than_may_be_and_what_was_held_is_given_back_first() -> None:
    first, second, few = run_script(
        HOLES
        + """
    found = [drain_pools().bytes_held, drain_pools().bytes_held, drain_pools(most=4096).bytes_held]
    print(json.dumps(found))
    """
    )
    assert abs(second - first) < first / 10
    assert few <= 4096 + 512


def test_another_allocator_is_refused_by_name() -> None:
    program = "import frostfork; print(frostfork.warmup(steps=['drain_pools']).steps['drain_pools'])"
    for allocator in ("malloc", "debug"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONMALLOC": allocator},
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        assert "unsupported" in done.stdout, (allocator, done.stdout)
        assert "pymalloc" in done.stdout
