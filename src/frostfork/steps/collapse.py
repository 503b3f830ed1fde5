# SPDX-License-Identifier: Apache-2.0
"""Collapse this process's small pages into huge ones: fork then copies one page table entry instead of 512.

The rule for where it pays: ranges of 2 MB in private memory without a file, of which at least 90 % of the pages are
present (so resident memory grows by a tenth at most) and none is shared with a living child (it would be copied away
from it), if the process has 64 of them. Below that a fork takes about a millisecond in any case.
"""

from __future__ import annotations

import errno
import os

from frostfork import _core
from frostfork.errors import UnsupportedStepError
from frostfork.pages import PAGE_SIZE
from frostfork.steps.report import Outcome

_SHARE = 90  # percent
_FEWEST = 64  # ranges, huge ones included
_SETTING = "/sys/kernel/mm/transparent_hugepage/enabled"


def collapse(*, share: int = _SHARE, fewest: int = _FEWEST) -> Outcome:
    """Collapse what is worth it; ranges that are huge already are passed over.

    share: percent of a range's pages that must be present. fewest: ranges below which nothing is done.
    details: `resident_growth` in bytes; ranges that were `already` huge, `shared` with children, too `sparse`; ranges
    that `failed`, because the kernel found no free huge page or would not touch the range, and the first one's `errno`.
    Raises UnsupportedStepError before Linux 6.1 and where huge pages are turned off.
    """
    _check_support()
    try:
        (ranges, already, shared, sparse), (collapsed, failed, added, number) = _core.collapse(share, fewest)
    except PermissionError as refused:
        raise UnsupportedStepError(
            "collapse cannot see this process's own pages: it is not dumpable."
        ) from refused
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        raise UnsupportedStepError(
            "collapse knows huge pages of up to 512 pages; this kernel's are larger."
        ) from error
    size = _huge_page_bytes()
    details = {"already": already, "shared": shared, "sparse": sparse, "failed": failed, "errno": number}
    details["resident_growth"] = added * PAGE_SIZE
    idle = ""
    if collapsed == failed == 0:
        idle = (
            f"{ranges} ranges could become huge pages, {already} are huge already, and it pays from {fewest} up."
            if ranges
            else f"No range could become a huge page; {already} are huge already."
        )
    elif collapsed == 0:
        idle = f"The kernel refused all {failed} ranges: {os.strerror(number)}."
    return Outcome(collapsed, "huge pages", collapsed * size, added * PAGE_SIZE, idle, details)


def _check_support() -> None:
    if not _core.kernel()["madv_collapse"]:
        raise UnsupportedStepError("collapse needs MADV_COLLAPSE, which Linux has from 6.1 on.")
    try:
        with open(_SETTING) as setting:
            never = "[never]" in setting.read()
    except OSError as error:
        raise UnsupportedStepError("collapse needs a kernel with transparent huge pages.") from error
    if never:
        raise UnsupportedStepError(f"Huge pages are turned off: {_SETTING} says never.")


def _huge_page_bytes() -> int:
    with open("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size") as size:
        return int(size.read())
