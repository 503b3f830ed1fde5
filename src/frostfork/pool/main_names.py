# SPDX-License-Identifier: Apache-2.0
"""What workers know of __main__."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


class MainNames:
    """The functions and classes of __main__ at one moment.

    A zygote that was forked then has them: they can go by name, and see the globals that they were defined with. What
    was defined later, or with a zygote that was started afresh, must go by value.
    """

    def __init__(self, inherited: bool = True) -> None:
        main = vars(sys.modules["__main__"]) if inherited and "__main__" in sys.modules else {}
        self._known = {name: value for name, value in main.items() if callable(value)}

    def are_strange(self, function: Callable[..., Any]) -> bool:
        """Whether workers may not find what this call needs of __main__."""
        if getattr(function, "__module__", None) != "__main__":
            return not self._known
        return self._known.get(getattr(function, "__qualname__", "")) is not function
