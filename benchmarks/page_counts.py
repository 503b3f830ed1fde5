# SPDX-License-Identifier: Apache-2.0
"""page_counts() against the bare pread of the same pagemap ranges in C, and against psutil's memory_maps().

Two processes are counted: this one with some 730 small mappings, and a still child of 200 MB. The C side only reads:
descriptor, ranges and buffer are made before the clock starts, and of some buffer sizes the quickest is taken.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import mmap
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from pairs import (
    PAGE_SIZE,
    BenchmarkError,
    Figure,
    figure,
    fresh,
    in_turn,
    medians,
    progress,
    ratios,
    small_objects,
)

import frostfork

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "page_counts"
GOAL_PREAD = 1.3
GOAL_PSUTIL = 0.1
_CAPACITIES = (512, 2048, 8192, 32768)  # entries a pread
_SUBJECTS = {"self": "itself with 730 mappings", "child": "a child of 200 MB"}


def run(*, quick: bool) -> list[Figure]:
    pairs = 40 if quick else 300
    found = []
    with tempfile.TemporaryDirectory(prefix="frostfork-bench-") as folder:
        library = _compile(Path(folder))
        for subject, title in _SUBJECTS.items():
            progress(f"{NAME}: {title}")
            measured = fresh(__file__, "--subject", subject, "--pairs", pairs, "--library", library)
            size = f"{measured['mappings']} mappings, {measured['pages']:,} pages"
            for other, goal in (("pread", GOAL_PREAD), ("psutil", GOAL_PSUTIL)):
                sides = measured[other]
                name = "bare pread in C" if other == "pread" else "psutil memory_maps()"
                detail = f"{medians(sides, (other, 'page_counts'), 1e-6, 'ms')}; {size}"
                if other == "pread":
                    detail += f"; preads of {measured['capacity']:,} entries"
                else:
                    floor = _least(measured["pread"]) / _least(sides)
                    detail += f"; the bare pread alone {floor:.3f} of psutil"
                found.append(figure(NAME, f"{title} / {name}", ratios(sides), goal, detail=detail))
    return found


def _least(sides: list[tuple[int, int]]) -> int:
    """Of the first of the two sides."""
    return min(first for first, _ in sides)


def _compile(folder: Path) -> Path:
    library = folder / "bare_pread.so"
    source = Path(__file__).with_name("bare_pread.c")
    compiler = os.environ.get("CC", "cc").split()
    command = [*compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(source)]
    try:
        subprocess.run(command, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise BenchmarkError(f"no C compiler built bare_pread.c (CC, or else cc): {error}") from error
    return library


def _clocked(call: Callable[[], object]) -> Callable[[], int]:
    clock = time.perf_counter_ns

    def measure() -> int:
        start = clock()
        call()
        return clock() - start

    return measure


class _Bare:
    """The C side, ready to read one process."""

    def __init__(self, library: str, pid: int) -> None:
        self._read = ctypes.CDLL(library).bare_pread
        self._read.restype = ctypes.c_long
        maps = [line.split(None, 5) for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
        # Those that the counts leave out too: the kernel's own, such as the vdso.
        kept = [fields[0] for fields in maps if len(fields) < 6 or not fields[5].startswith("[v")]
        ends = [int(end, 16) for span in kept for end in span.split("-")]
        self.mappings = len(kept)
        self._pagemap = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        self._ranges = (ctypes.c_uint64 * len(ends))(*ends)
        self._entries = (ctypes.c_uint64 * max(_CAPACITIES))()
        ctypes.memset(self._entries, 1, ctypes.sizeof(self._entries))
        self.capacity = min(_CAPACITIES, key=self._seconds)

    def _seconds(self, capacity: int) -> float:
        self.capacity = capacity
        return statistics.median(_clocked(self)() for _ in range(15))

    def __call__(self) -> int:
        total: int = self._read(
            self._pagemap,
            self._ranges,
            ctypes.c_size_t(self.mappings),
            self._entries,
            ctypes.c_size_t(self.capacity),
            ctypes.c_uint64(PAGE_SIZE),
        )
        if total < 0:
            raise BenchmarkError("pread of pagemap failed")
        return total


def _many_mappings() -> list[mmap.mmap]:
    made: list[mmap.mmap] = []
    size = 32 * PAGE_SIZE
    mprotect = ctypes.CDLL(None).mprotect
    while (more := 730 - len(Path("/proc/self/maps").read_text().splitlines())) > 0:
        for _ in range(more):
            area = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            area.write(bytes(size))
            # Neighbours of unlike protection, for the kernel makes one mapping of like ones.
            if len(made) % 2:
                address = ctypes.addressof(ctypes.c_char.from_buffer(area))
                mprotect(ctypes.c_void_p(address), ctypes.c_size_t(size), mmap.PROT_READ)
            made.append(area)
    return made


def _still_child() -> tuple[int, int]:
    """A child that has told that it runs and from then on waits; its pid, and the descriptor whose closing ends it.

    The end of this process closes it too, so the child is never left behind.
    """
    ready, tell = os.pipe()
    wait, end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(end)
        os.write(tell, b".")
        os.read(wait, 1)
        os._exit(0)
    os.close(tell)
    os.close(wait)
    os.read(ready, 1)
    os.close(ready)
    return (pid, end)


def _measure(subject: str, library: str, pairs: int) -> dict[str, object]:
    if subject == "self":
        held = _many_mappings()
        result = _counts(os.getpid(), None, library, pairs)
        del held
        return result
    objects = small_objects(200 << 20)
    pid, end = _still_child()
    try:
        return _counts(pid, pid, library, pairs)
    finally:
        os.close(end)
        os.waitpid(pid, 0)
        del objects


def _counts(pid: int, known: int | None, library: str, pairs: int) -> dict[str, object]:
    ours = _clocked(lambda: frostfork.page_counts(known))
    bare, process = _Bare(library, pid), psutil.Process(pid)
    return {
        "pages": frostfork.page_counts(known).present,
        "mappings": bare.mappings,
        "capacity": bare.capacity,
        "pread": in_turn(_clocked(bare), ours, pairs),
        "psutil": in_turn(_clocked(process.memory_maps), ours, max(10, pairs // 5)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Counts of one process; prints nanoseconds pair by pair as JSON."
    )
    parser.add_argument("--subject", choices=_SUBJECTS, required=True)
    parser.add_argument("--library", required=True)
    parser.add_argument("--pairs", type=int, required=True)
    options = parser.parse_args()
    print(json.dumps(_measure(options.subject, options.library, options.pairs)))


if __name__ == "__main__":
    main()
