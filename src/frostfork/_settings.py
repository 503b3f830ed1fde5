# SPDX-License-Identifier: Apache-2.0
"""Checks of what users pass: one sentence that names the setting, its value and what is allowed."""

from __future__ import annotations

from frostfork.errors import ConfigurationError


def whole(name: str, value: object, least: int, or_none: bool = False) -> None:
    if value is None and or_none:
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        none = "None and " if or_none else ""
        raise ConfigurationError(f"{name} is {value!r}; allowed are {none}whole numbers from {least}")


def seconds(name: str, value: object, or_none: bool = False) -> None:
    if value is None and or_none:
        return
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not value > 0:
        none = "None and " if or_none else ""
        raise ConfigurationError(f"{name} is {value!r}; allowed are {none}seconds above 0")


def function(name: str, value: object) -> None:
    """None, or what can be called. TypeError, as concurrent.futures has it."""
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be a callable or None, not {value!r}")


def instance(name: str, value: object, kind: type, or_none: bool = False) -> None:
    if not isinstance(value, kind) and not (or_none and value is None):
        none = " or None" if or_none else ""
        raise TypeError(f"{name} must be of type {kind.__name__}{none}, not {value!r}")
