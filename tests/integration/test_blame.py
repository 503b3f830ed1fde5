# SPDX-License-Identifier: Apache-2.0
"""Blame against ground truth: children that write known things into memory that they share."""

from __future__ import annotations

import gc
import mmap
import sys
import tempfile
from typing import Any

import pytest

import frostfork
from frostfork import PAGE_SIZE
from tests.integration.blaming import blamed, owned, pages_of


def test_each_page_counts_once_and_the_floor_follows_from_the_bytes() -> None:
    report = blamed(lambda: [str(i) for i in range(1000)])
    assert report.processes == 1
    assert report.complete
    assert report.unshared == sum(report.by_kind.values()) > 0
    assert report.changed_bytes > 0
    assert report.floor == -(-report.changed_bytes // PAGE_SIZE)
    assert all(share.alone <= share.pages <= share.touched for share in report.causes.values())


def test_objects_that_are_only_read_leave_unchanged_pages() -> None:
    numbers = [i + 0.5 for i in range(50_000)]

    def read() -> None:
        for _ in numbers:
            pass

    idle = blamed(lambda: None)
    report = blamed(read)
    pages = pages_of(numbers)
    assert pages > 200
    assert (
        pages * 0.95 < report.causes["unchanged"].pages - idle.causes["unchanged"].pages < pages * 1.05 + 20
    )


def test_references_that_are_kept_are_reference_counts() -> None:
    numbers = [i + 0.5 for i in range(50_000)]
    kept: list[float] = []
    report = blamed(lambda: kept.extend(numbers))
    pages, changed = owned(report, "reference counts", "float")
    # From 1 to 2: one byte each. A page or two of them the child had already copied when the blame began.
    assert 49_500 <= changed <= 51_000
    assert pages >= pages_of(numbers) - 4
    assert report.causes["reference counts"].alone >= pages_of(numbers) * 0.95


def test_bytes_of_a_bytearray_are_counted_to_the_byte() -> None:
    # So large that malloc gives it a mapping of its own, whatever was freed before: no neighbours in its first page.
    buffer = bytearray(b"x") * (34 << 20)

    def write() -> None:
        for i in range(0, 3_000_000, 3):
            buffer[i] = 255

    pages, changed = owned(blamed(write), "tables", "bytearray")
    assert changed == 1_000_000
    assert pages in (733, 734)  # 732.4, from somewhere in a page on


def test_small_buffers_are_told_from_each_other() -> None:
    buffers = [bytearray(100) for _ in range(5000)]

    def write() -> None:
        for buffer in buffers:
            buffer[::2] = b"x" * 50

    # Some lie on pages that the child had already copied when the blame began.
    pages, changed = owned(blamed(write), "tables", "bytearray")
    assert 240_000 <= changed <= 250_000
    assert pages >= 5000 * 100 / PAGE_SIZE


def test_bytes_of_a_mapping_are_counted_to_the_byte() -> None:
    with tempfile.TemporaryFile() as file:
        file.truncate(100 * PAGE_SIZE)
        memory = mmap.mmap(file.fileno(), 100 * PAGE_SIZE, flags=mmap.MAP_PRIVATE)
    memory.write(b"x" * len(memory))

    def write() -> None:
        memory[0] = ord("y")
        memory[10 * PAGE_SIZE : 12 * PAGE_SIZE] = b"y" * 2 * PAGE_SIZE
        memory[20 * PAGE_SIZE] = ord("x")  # what was there already: the page is copied, and no byte changes

    share = blamed(write).causes["other mappings"]
    memory.close()
    assert share == (3, 3, 3, 1 + 2 * PAGE_SIZE)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="3.14 tracks no tuple of numbers in the first place")
def test_a_collection_writes_headers_unless_the_child_froze() -> None:
    gc.collect()
    gc.disable()
    try:
        # Tuples of numbers leave the collector's lists in the first collection that meets them.
        pairs = [(i, i) for i in range(20_000)]
        collected = blamed(gc.collect, lambda: frostfork.fork(freeze=False))
        frozen = blamed(gc.collect, frostfork.fork)
    finally:
        gc.enable()
    pages, changed = owned(collected, "collector headers", "tuple")
    assert changed >= 20_000 * 8  # two pointers each become zero
    assert pages >= pages_of(pairs) * 0.85
    assert owned(frozen, "collector headers", "tuple")[1] < 1000
    assert frozen.complete  # frozen objects are none of gc.get_objects()


def test_functions_that_run_for_the_first_time_write_their_code() -> None:
    body = "\n".join(f"    a.real; b = a + {i}; a = b - {i}; len('x'); int" for i in range(20))
    source = "\n".join(f"def f{i}(a):\n{body}\n" for i in range(60))
    cold: dict[str, Any] = {}
    exec(compile(source, "/nowhere/cold.py", "exec"), cold)
    functions = [cold[f"f{i}"] for i in range(60)]

    def run() -> None:
        for function in functions:
            for _ in range(1100):  # 3.10 begins at 1,024
                function(5)

    pages, changed = owned(blamed(run), "code", "/nowhere/cold.py")
    assert changed > 60 * 20
    assert pages >= 60 * 20 * 8 / PAGE_SIZE
    assert owned(blamed(lambda: None), "code", "/nowhere/cold.py") == (0, 0)


def test_values_of_a_dict_are_its_table() -> None:
    mapping: dict[int, object] = dict.fromkeys(range(10_000), "before")

    def change() -> None:
        for key in mapping:
            mapping[key] = True

    pages, changed = owned(blamed(change), "tables", "dict")
    assert changed >= 10_000 * 2
    assert pages >= 10_000 * 24 / PAGE_SIZE


@pytest.mark.skipif(
    sys.version_info[:2] != (3, 12), reason="only 3.12 gives an altered function a version when it is called"
)
def test_functions_that_are_called_get_versions() -> None:
    source = "def f{0}(): pass\ndef g{0}():\n    for _ in range(100): f{0}()\n"
    made: dict[str, Any] = {}
    exec("".join(source.format(i) for i in range(2000)), made)
    called = [made[f"f{i}"] for i in range(2000)]
    for function in called:
        function.__code__ = function.__code__.replace()  # takes its version away

    def run() -> None:
        for i in range(2000):
            made[f"g{i}"]()

    pages, changed = owned(blamed(run), "versions", "function")
    assert changed >= 2000
    assert pages >= pages_of(called) * 0.9


def test_what_is_made_in_the_childs_time_is_new() -> None:
    holes = [i + 0.5 for i in range(40_000)]
    del holes[::2]  # a complex number takes a block of the same size
    kept: list[complex] = []
    report = blamed(lambda: kept.extend(complex(i, 0.5) for i in range(10_000)))
    pages, changed = owned(report, "new objects", "complex")
    assert changed > 10_000 * 8
    assert pages > 50
    assert report.causes["new objects"].alone <= report.causes["new objects"].pages


def test_what_is_freed_is_the_allocators() -> None:
    numbers = [i + 0.5 for i in range(50_000)]
    report = blamed(numbers.clear)
    assert report.causes["allocator"].bytes > 50_000
    assert report.causes["allocator"].pages > pages_of(numbers) * 0.9


def test_types_are_named_with_their_module() -> None:
    types = [type(f"Marked{i}", (), {"__module__": "some.module", "mark": 0}) for i in range(300)]

    def change() -> None:
        for kind in types:
            kind.mark = 1  # takes its version away
            kind().mark  # gives it one  # noqa: B018

    names = {owner.name for owner in blamed(change).owners if owner.cause == "versions"}
    # Some lie on pages that the child had already copied when the blame began.
    assert len(names & {f"some.module.Marked{i}" for i in range(300)}) > 200
