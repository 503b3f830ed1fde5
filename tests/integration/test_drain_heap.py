# SPDX-License-Identifier: Apache-2.0
"""Held holes, in interpreters of their own: what a child copies, what is held, and who is refused."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.integration.forking import run_script

# 10,000 holes between as many chunks in use; a child that fills 2,500; how many pages of the heap it copied thereby.
# 700 bytes are malloc's: pymalloc serves what is smaller.
HOLES = """
    import gc, json, os, sys
    import frostfork
    from frostfork.steps.drain_heap import drain_heap, release

    def holes(size):
        return [bytes(size) for _ in range(20000)][::2]

    def copied():
        into_parent, from_child = os.pipe()
        pid = frostfork.fork(baseline=True)
        if pid == 0:
            baseline = frostfork.child_baseline()
            kept = [None] * 2500
            before = baseline.compare().by_kind["heap"].unshared
            for at in range(2500):
                kept[at] = bytes(700)
            os.write(from_child, b"%d" % (baseline.compare().by_kind["heap"].unshared - before))
            os._exit(0)
        os.close(from_child)
        os.waitpid(pid, 0)
        answer = os.read(into_parent, 100)
        os.close(into_parent)
        return int(answer)

    in_use = holes(700)
    # The next allocation of another size sorts the chunks that were freed and writes to each: here, not in the child.
    sorts = bytes(5000)
"""


def test_a_child_fills_no_holes_of_a_drained_parent() -> None:
    before, drained, after, details = run_script(
        HOLES
        + """
    before = copied()
    outcome = drain_heap(most=64 << 20)
    print(json.dumps([before, outcome.count, copied(), outcome.details]))
    """
    )
    assert before >= 300  # 2,500 holes of 733 bytes, between others in use, are 880 pages
    assert drained >= 9_000
    assert details == {"capped": 0}
    assert after * 4 < before


def test_held_memory_does_not_add_up() -> None:
    first, later, resident, released = run_script(
        HOLES
        + """
    def resident():
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1])

    first = drain_heap()
    for _ in range(20):
        drain_heap()
    before, sizes = resident(), []
    for at in range(1000):
        outcome = drain_heap()
        sizes.append(outcome.bytes_held)
    grown = resident() - before
    release()
    print(json.dumps([first.bytes_held, max(sizes), grown, drain_heap().bytes_held]))
    """
    )
    assert later <= first * 1.05
    assert released <= first * 1.05
    assert resident <= 100  # pages


def test_the_cap_is_a_share_of_resident_memory_and_is_said() -> None:
    held, resident, capped = run_script(
        HOLES
        + """
    more = [holes(700), holes(1000)]
    outcome = drain_heap()
    with open("/proc/self/statm") as statm:
        resident = int(statm.read().split()[1]) * frostfork.PAGE_SIZE
    print(json.dumps([outcome.bytes_held, resident, outcome.details["capped"]]))
    """
    )
    assert capped == 1
    assert held <= resident * 0.011  # 1 %, and what it grew by


@pytest.mark.parametrize("allocator", ["malloc", "debug"])
def test_holes_of_the_heap_are_drained_without_pymalloc(allocator: str) -> None:
    (count,) = run_script(
        HOLES + "    print(json.dumps([drain_heap(most=64 << 20).count]))\n", PYTHONMALLOC=allocator
    )
    assert count >= 9_000


FORWARDING = """
#include <stddef.h>
void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
void __libc_free(void *);
void *malloc(size_t bytes) { return __libc_malloc(bytes); }
void *calloc(size_t count, size_t bytes) { return __libc_calloc(count, bytes); }
void *realloc(void *memory, size_t bytes) { return __libc_realloc(memory, bytes); }
void free(void *memory) { __libc_free(memory); }
"""

SAY_WHY = """
    import json
    import frostfork
    step = frostfork.warmup(steps=["drain_heap"]).steps["drain_heap"]
    try:
        frostfork.warmup(steps=["drain_heap"], strict=True)
    except frostfork.UnsupportedStepError as error:
        print(json.dumps([step.status, step.reason, str(error)]))
"""


def test_another_allocator_is_named_and_left_alone(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("needs a C compiler to make an allocator")
    source, library = tmp_path / "other.c", tmp_path / "libother-malloc.so"
    source.write_text(FORWARDING)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True, timeout=60)
    status, reason, error = run_script(SAY_WHY, LD_PRELOAD=str(library))
    assert status == "unsupported"
    assert reason == error
    assert "libother-malloc.so" in reason


def test_jemalloc_is_named_and_left_alone() -> None:
    library = next(Path("/usr/lib").glob("*-linux-gnu/libjemalloc.so.2"), None)
    if library is None:
        pytest.skip("needs libjemalloc.so.2")
    status, reason, _ = run_script(SAY_WHY, LD_PRELOAD=str(library))
    assert status == "unsupported"
    assert "jemalloc" in reason


def test_a_thread_with_an_arena_of_its_own_is_refused() -> None:
    refused = run_script(
        """
    import json, threading
    from frostfork.errors import UnsupportedStepError
    from frostfork.steps.drain_heap import drain_heap
    said = []
    def in_thread():
        try:
            drain_heap()
        except UnsupportedStepError as error:
            said.append(str(error))
    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    print(json.dumps(said))
    """
    )
    assert len(refused) == 1
    assert "main thread" in refused[0]
