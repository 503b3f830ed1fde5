# SPDX-License-Identifier: Apache-2.0
"""Let the kernel merge pages of equal content (KSM), in this process and in the children that it forks from now on.

Off by default: it costs a kernel thread's time and helps late. It is for interpreters that cannot make objects
immortal, whose children copy pages only because reference counts go up and down again.
"""

from __future__ import annotations

import errno

from frostfork import _core
from frostfork.errors import UnsupportedStepError
from frostfork.steps.report import Outcome

_RUN = "/sys/kernel/mm/ksm/run"


def merge() -> Outcome:
    """Turn merging on. Raises UnsupportedStepError before Linux 6.4 and where KSM is not running."""
    try:
        with open(_RUN) as run:
            running = run.read().strip() == "1"
    except OSError as error:
        raise UnsupportedStepError(f"merge needs a kernel with KSM, and {_RUN} cannot be read.") from error
    if not running:
        raise UnsupportedStepError(f"KSM is not running: root turns it on by writing 1 to {_RUN}.")
    try:
        if _core.merge_get():
            return Outcome(0, "processes", idle="This process's memory may be merged already.")
        _core.merge_set(True)
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise UnsupportedStepError(
                "merge needs PR_SET_MEMORY_MERGE, which Linux has from 6.4 on."
            ) from error
        if error.errno == errno.EPERM:
            raise UnsupportedStepError("merge needs CAP_SYS_RESOURCE here.") from error
        raise
    return Outcome(1, "processes")


def unmerge() -> None:
    """Turn merging off again, here and in later children.

    The kernel takes apart what it merged, and looks at every mapped address for it: tens of milliseconds, but minutes
    in a process that has reserved terabytes.
    """
    _core.merge_set(False)
