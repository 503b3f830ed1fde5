# SPDX-License-Identifier: Apache-2.0
"""Module names and the patterns that users write for them."""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Iterable


def matches(module: str, patterns: Iterable[str]) -> bool:
    """Whether a pattern names the module or a package above it; `*` and `?` as in file names."""
    return _compiled(tuple(patterns)).fullmatch(module) is not None


@functools.lru_cache(maxsize=1024)
def _compiled(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """One expression for all patterns: thousands of modules are asked about in one go."""
    if not patterns:
        return re.compile(r"(?!)")
    either = "|".join(
        fnmatch.translate(pattern).removesuffix(r"\Z").removesuffix(r"\z") for pattern in patterns
    )
    return re.compile(rf"(?:{either})(?:\..*)?", re.DOTALL)


def ancestors(module: str) -> list[str]:
    """The packages above a module, the nearest first."""
    parts = module.split(".")
    return [".".join(parts[:length]) for length in range(len(parts) - 1, 0, -1)]
