# SPDX-License-Identifier: Apache-2.0
"""What workers know of __main__."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from frostfork.zygote import Zygote


class MainNames:
    """The functions and classes of __main__ that workers have, too.

    A zygote that is forked has all that were there at that moment; one that is started afresh has what importing the
    program's file defines. These go by name, and see the globals that they were defined with. What was defined later,
    or nowhere but here, must go by value.
    """

    def __init__(self, known: dict[str, Any]) -> None:
        self._known = known

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

    def are_strange(self, function: Callable[..., Any]) -> bool:
        """Whether workers may not find what this call needs of __main__."""
        if getattr(function, "__module__", None) != "__main__":
            return not self._known
        return self._known.get(getattr(function, "__qualname__", "")) is not function
