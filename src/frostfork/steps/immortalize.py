# SPDX-License-Identifier: Apache-2.0
"""Make immortal what modules reach, so that looking at it writes no reference count.

csrc/py/immortal.c says what is left alone and why.
"""

from __future__ import annotations

import sys

from frostfork import _core
from frostfork.errors import UnsupportedStepError
from frostfork.steps.report import Outcome


def immortalize(*, afresh: bool = False) -> Outcome:
    """The first time all that modules reach; later new modules, and new functions and classes in old ones.

    afresh: look at everything again, at the cost of the first time, since the data of modules has changed.
    """
    if not _core.immortal_supported():
        version = ".".join(map(str, sys.version_info[:2]))
        if sys.version_info < (3, 12):
            raise UnsupportedStepError(f"Python {version} has no immortal objects; 3.12 brought them.")
        raise UnsupportedStepError(
            f"The free-threaded build of Python {version} counts references elsewhere."
        )
    objects, size, left_alone, hashed, versions = _core.immortalize(afresh)
    return Outcome(
        objects,
        "objects",
        bytes=size,
        bytes_held=size,
        details={"left_alone": left_alone, "hashed": hashed, "versions": versions},
    )
