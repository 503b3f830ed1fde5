# SPDX-License-Identifier: Apache-2.0
"""The global random generators: a seed that an import sets, all children would share.

numpy takes 100 microseconds to say its state, so it is asked after each module that was asked for, not after each of
those that come along.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

from frostfork.fingerprint.probe import Effect, Probe

# By generator: its state when its own import ended. So who loads one and then seeds it is seen, too.
_first: dict[str, object] = {}


def _python() -> dict[str, object]:
    if "numpy.random" not in _first:
        _numpy()
    generator: Any = getattr(sys.modules.get("random"), "_inst", None)
    return _noted("random", generator, lambda: generator.getstate())


def _numpy() -> dict[str, object]:
    generator: Any = getattr(sys.modules.get("numpy.random.mtrand"), "_rand", None)

    def state() -> object:
        values = generator.get_state(legacy=False)["state"]
        return repr(values.get("pos")), bytes(values["key"])

    return _noted("numpy.random", generator, state)


def _noted(name: str, generator: object, state: Callable[[], object]) -> dict[str, object]:
    if generator is None:
        return {}
    now = state()
    _first.setdefault(name, now)
    return {name: now}


def _explain(before: dict[str, object], after: dict[str, object]) -> Iterator[Effect]:
    for name, state in after.items():
        if before.get(name, _first[name]) != state:
            yield "random", f"seeded {name}, or drew from it"


QUICK = (Probe(_python, _explain),)
DEEP = (Probe(_numpy, _explain),)
