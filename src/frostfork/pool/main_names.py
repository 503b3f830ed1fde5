# SPDX-License-Identifier: Apache-2.0
"""What workers know of __main__."""

from __future__ import annotations

import sys
from typing import Any

from frostfork.zygote import Zygote


class MainNames:
    """The functions and classes of __main__ that workers have, too.

    A zygote that is forked has all that were there at that moment; one that is started afresh has what importing the
    program's file defines. These go by name, and see the globals that they were defined with. What was defined later,
    or nowhere but here, must go by value.

    complete: whether nothing else is known to workers; of a zygote that is not the pool's own it cannot be told.
    """

    def __init__(self, known: dict[str, Any], complete: bool = True) -> None:
        self._known = known
        self.complete = complete

    @classmethod
    def here(cls) -> MainNames:
        """All of this process."""
        main = sys.modules.get("__main__")
        return cls({name: value for name, value in vars(main).items() if callable(value)} if main else {})

    def known_to(self, zygote: Zygote) -> MainNames:
        """Of these, what the zygote has; its template is a PoolTemplate."""
        theirs = zygote.call("main_names")
        assert isinstance(theirs, frozenset)
        return MainNames({name: value for name, value in self._known.items() if name in theirs})

    def lack(self, value: Any) -> bool:
        """Whether workers lack this function or class of __main__, or have another one under its name."""
        first, *others = value.__qualname__.split(".")
        found = self._known.get(first)
        for name in others:
            found = getattr(found, name, None)
        return found is not value
