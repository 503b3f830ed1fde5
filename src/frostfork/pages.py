# SPDX-License-Identifier: Apache-2.0
"""Which pages a process has, and which of those it shared at a fork it has since made its own."""

from __future__ import annotations

import mmap
import operator
from typing import NamedTuple

from frostfork import _core

PAGE_SIZE = mmap.PAGESIZE


class PageCounts(NamedTuple):
    """Pages of a process by state, as its page table shows them.

    `present` = `anonymous` + `file` = `exclusive` + `shared`. `file` includes shared memory. `huge` counts the
    present pages that are part of a huge page; None before Linux 6.7, which cannot tell without a scan of all
    mappings.
    """

    present: int
    anonymous: int
    file: int
    exclusive: int
    shared: int
    swapped: int
    huge: int | None

    @property
    def bytes(self) -> PageCounts:
        """The same counts in bytes."""
        return PageCounts._make(None if pages is None else pages * PAGE_SIZE for pages in self)


def page_counts(pid: int | None = None) -> PageCounts:
    """Count the pages of a process, by default of the calling one. About 10 ns a page.

    Raises OSError where the kernel refuses: ProcessLookupError or FileNotFoundError for a process that is gone,
    PermissionError for one of another user or with PR_SET_DUMPABLE=0 (even one's own, without CAP_SYS_PTRACE).
    """
    *counts, huge = _core.page_counts(_checked(pid))
    return PageCounts._make((*counts, None if huge < 0 else huge))


class Change(NamedTuple):
    """What became of the anonymous pages of one kind of mapping; in pages."""

    unshared: int
    copied: int | None
    new: int
    dropped: int


class CopyReport(NamedTuple):
    """The difference between a baseline and now, in pages.

    unshared: shared at the baseline, exclusive now. Either this process wrote the page and has a copy, or every
        other user of it has copied it or gone away.
    copied: unshared, and in another physical frame than at the baseline: this process's own copies. None where
        frame numbers cannot be read, with the reason in `copied_unknown`.
    new: anonymous now, absent at the baseline.
    dropped: anonymous at the baseline, absent now.
    by_kind: the same for each kind of mapping ("heap", "stack", "anonymous", "file"); pages whose mapping is
        gone are dropped ones of kind "unmapped".
    """

    unshared: int
    copied: int | None
    new: int
    dropped: int
    by_kind: dict[str, Change]
    copied_unknown: str | None = None


class Baseline:
    """The anonymous pages that a process had at one moment, to compare with later.

    It takes two bits for a page, and 3 to 4 bytes where frame numbers can be read; 1 GB stays under 1 MB. The
    record lies in shared memory, so it is no part of what it measures. A baseline that a parent took of itself
    can be compared in its children: all its pages came to them shared.
    """

    __slots__ = ("_handle",)

    def __init__(self, handle: _core.BaselineHandle) -> None:
        self._handle = handle

    @classmethod
    def take(cls, pid: int | None = None) -> Baseline:
        """Record the pages of a process, by default of the calling one. Raises OSError as page_counts does."""
        handle = _core.BaselineHandle(_checked(pid))
        handle.take()
        return cls(handle)

    @property
    def pid(self) -> int:
        """The process whose pages these are."""
        return self._handle.info()[0]

    @property
    def anonymous(self) -> int:
        """Anonymous pages at the baseline."""
        return self._handle.info()[1]

    @property
    def shared(self) -> int:
        """Of these, pages that another process mapped as well."""
        return self._handle.info()[2]

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the record itself takes."""
        return self._handle.info()[4]

    def compare(self) -> CopyReport:
        """Compare with now. Raises OSError as page_counts does."""
        kinds, unmapped, frames = self._handle.compare()
        by_kind = {
            name: Change(unshared, copied if frames else None, new, dropped)
            for name, (unshared, copied, new, dropped) in zip(_core.KINDS, kinds, strict=True)
            if name not in ("shared", "special")
        }
        by_kind["unmapped"] = Change(0, 0 if frames else None, 0, unmapped)
        copied_sum = sum(copied for _, copied, _, _ in kinds)
        return CopyReport(
            unshared=sum(change.unshared for change in by_kind.values()),
            copied=copied_sum if frames else None,
            new=sum(change.new for change in by_kind.values()),
            dropped=sum(change.dropped for change in by_kind.values()),
            by_kind=by_kind,
            copied_unknown=None if frames else "frame numbers cannot be read without CAP_SYS_ADMIN",
        )

    def __repr__(self) -> str:
        return f"<Baseline of process {self.pid}: {self.anonymous} anonymous pages, {self.shared} shared>"


def _checked(pid: int | None) -> int:
    """The binding's pid: 0 for the calling process. A pid of 0 or below is nobody's."""
    if pid is None:
        return 0
    if isinstance(pid, bool) or not hasattr(pid, "__index__"):
        raise TypeError(f"pid must be a whole number, not {pid!r}")
    number = operator.index(pid)
    if not 0 < number < 2**31:
        raise ValueError(f"a process id is above 0 and below 2**31, not {number}")
    return number
