# SPDX-License-Identifier: Apache-2.0
"""Puts what frostfork has in the place of what CPython's tests test, as $FROSTFORK_IN_PLACE names it.

Each interpreter that a test starts imports this first, by way of a .pth file (compare.py): many tests run scripts.
"""

from __future__ import annotations

import importlib
import os

_PLACES = {
    "fork": "in_place_of_fork",
    "zygote": "in_place_of_forkserver",
    "exec": "in_place_of_forkserver",
    "pool": "in_place_of_executor",
}
if (_place := os.environ.get("FROSTFORK_IN_PLACE", "")) in _PLACES:
    importlib.import_module(_PLACES[_place])
