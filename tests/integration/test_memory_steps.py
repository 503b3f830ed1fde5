# SPDX-License-Identifier: Apache-2.0
"""The steps of a warmup that work on memory, in interpreters of their own: what they do to pages is shown by pages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import frostfork
from frostfork import UnsupportedStepError

COLLAPSE = import_module("frostfork.steps.collapse")
MERGE = import_module("frostfork.steps.merge")

# 10,000 holes of each kind, between as many blocks in use; a child that fills 2,500 of each; and how many pages of
# each kind of memory it copied thereby. 700 bytes are malloc's, 200 are pymalloc's.
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
            for size in (700, 200):
                before = baseline.compare().by_kind
                for at in range(2500):
                    kept[at] = bytes(size)
                after = baseline.compare().by_kind
                kind = "heap" if size == 700 else "anonymous"
                os.write(from_child, b"%d " % (after[kind].unshared - before[kind].unshared))
                kept = [None] * 2500
            os._exit(0)
        os.close(from_child)
        os.waitpid(pid, 0)
        answer = os.read(into_parent, 100)
        os.close(into_parent)
        return [int(pages) for pages in answer.split()]

    in_use = [holes(700), holes(200)]
"""


def run_script(script: str, **environment: str) -> Any:
    """What a fresh interpreter prints, read as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=90,
        env={**os.environ, **environment},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_child_fills_no_holes_of_a_drained_parent() -> None:
    (heap, pools), drained, (heap_after, pools_after), details = run_script(
        HOLES
        + """
    before = copied()
    outcome = drain_heap(most=64 << 20)
    print(json.dumps([before, outcome.count, copied(), outcome.details]))
    """,
        PYTHONMALLOC="pymalloc",
    )
    assert heap >= 300  # 2,500 holes of 733 bytes, between others in use, are 880 pages
    assert pools >= 100
    assert drained >= 15_000
    assert details["pool_blocks"] >= 9_000
    assert details["capped"] == 0
    assert heap_after * 4 < heap
    assert pools_after * 4 < pools


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
    from frostfork import _core
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
    assert held <= resident * 0.021  # 1 % of each kind


@pytest.mark.parametrize("allocator", ["malloc", "debug"])
def test_holes_of_the_heap_are_drained_without_pymalloc(allocator: str) -> None:
    blocks, count = run_script(
        HOLES
        + """
    outcome = drain_heap()
    print(json.dumps([outcome.details["pool_blocks"], outcome.count]))
    """,
        PYTHONMALLOC=allocator,
    )
    assert blocks == 0
    assert count >= 500


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


COLLAPSED = """
    import json, mmap, os
    import frostfork
    from frostfork.steps.collapse import collapse

    held = [[str(at), (at, at + 0.5)] for at in range(300_000)]
    before = frostfork.page_counts()
    outcome = collapse(fewest=1)
    after = frostfork.page_counts()
    again = collapse(fewest=1)
    into_parent, from_child = os.pipe()
    pid = frostfork.fork(baseline=True)
    if pid == 0:
        baseline = frostfork.child_baseline()
        private = frostfork.page_counts().exclusive
        for made in held[::15000]:
            made.append(None)
        os.write(from_child, b"%d %d" % (baseline.compare().unshared, frostfork.page_counts().exclusive - private))
        os._exit(0)
    os.waitpid(pid, 0)
    unshared, private = map(int, os.read(into_parent, 100).split())
    print(json.dumps({
        "count": outcome.count, "bytes": outcome.bytes, "idle": outcome.idle, "details": outcome.details,
        "huge": (after.huge or 0) - (before.huge or 0), "grown": after.present - before.present,
        "again": again.count, "already": again.details["already"], "unshared": unshared, "private": private,
    }))
"""


def needs_collapse() -> None:
    try:
        COLLAPSE.collapse()
    except UnsupportedStepError as error:
        pytest.skip(str(error))


def test_collapse_makes_huge_pages_once_and_children_copy_small_ones() -> None:
    needs_collapse()
    found = run_script(COLLAPSED)
    if found["details"]["failed"]:
        pytest.skip(f"this machine has too few free huge pages: {found['idle']}")
    assert found["count"] >= 5
    assert found["bytes"] == found["count"] * 2 << 20
    if frostfork.page_counts().huge is not None:
        assert found["huge"] == found["count"] * 512
        assert found["already"] >= found["count"]
        assert found["again"] <= 2  # what the interpreter filled meanwhile
    assert found["details"]["resident_growth"] // frostfork.PAGE_SIZE <= found["count"] * 52
    assert abs(found["grown"] - found["details"]["resident_growth"] // frostfork.PAGE_SIZE) <= 600
    # Twenty lists far apart, what they grow into, and the interpreter's own: not twenty times 512 pages.
    assert 20 <= found["unshared"] <= 500
    assert found["private"] <= 500


def test_a_small_process_is_not_collapsed() -> None:
    needs_collapse()
    step = run_script(
        """
    import json
    import frostfork
    print(json.dumps(frostfork.warmup(steps=["collapse"]).steps["collapse"]))
    """
    )
    assert step[1] == "skipped"
    assert "huge" in step[2]


def test_collapse_respects_never(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = tmp_path / "enabled"
    setting.write_text("always madvise [never]\n")
    monkeypatch.setattr(COLLAPSE, "_SETTING", str(setting))
    with pytest.raises(UnsupportedStepError, match=r"never|6\.1"):
        COLLAPSE.collapse()


def test_merge_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    monkeypatch.setattr(MERGE, "_RUN", str(run))
    with pytest.raises(UnsupportedStepError, match="cannot be read"):
        MERGE.merge()
    run.write_text("0\n")
    with pytest.raises(UnsupportedStepError, match="root turns it on"):
        MERGE.merge()


def test_merge_is_inherited_and_undone(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.write_text("1\n")
    first, second, child, after = run_script(
        f"""
    import json, os
    from importlib import import_module
    from frostfork import _core
    from frostfork.errors import UnsupportedStepError
    step = import_module("frostfork.steps.merge")
    step._RUN = {str(run)!r}
    try:
        first = step.merge()
    except UnsupportedStepError as error:
        print(json.dumps([str(error), 0, 0, 0]))
        raise SystemExit
    second = step.merge()
    pid = os.fork()
    if pid == 0:
        os._exit(_core.merge_get())
    child = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    step.unmerge()
    print(json.dumps([first.count, second.idle, child, _core.merge_get()]))
    """
    )
    if isinstance(first, str):
        pytest.skip(first)
    assert (first, child, after) == (1, 1, False)
    assert "already" in second
