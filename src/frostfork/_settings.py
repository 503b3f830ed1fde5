# SPDX-License-Identifier: Apache-2.0
"""Checks of what users pass: one sentence that names the setting, its value and what is allowed."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterable
from typing import Any

from frostfork.errors import ConfigurationError


def whole(name: str, value: object, least: int, or_none: bool = False, most: float = math.inf) -> None:
    if value is None and or_none:
        return
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        none = "None and " if or_none else ""
        limit = "" if math.isinf(most) else f" to {most:,.0f}"
        raise ConfigurationError(f"{name} is {value!r}; allowed are {none}whole numbers from {least}{limit}")


def seconds(name: str, value: object, or_none: bool = False, most: float = math.inf) -> None:
    """most: what is longer is refused, but for math.inf."""
    if value is None and or_none:
        return
    fine = isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
    if not fine or most < value < math.inf:  # type: ignore[operator]  # it is a number
        none = "None and " if or_none else ""
        limit = "" if math.isinf(most) else f" to {most:,.0f}"
        raise ConfigurationError(f"{name} is {value!r}; allowed are {none}seconds above 0{limit}")


def number(name: str, value: object, unit: str, or_none: bool = False) -> None:
    """From 0; unit: in which it counts."""
    if value is None and or_none:
        return
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not value >= 0:
        none = "None and " if or_none else ""
        raise ConfigurationError(f"{name} is {value!r}; allowed are {none}{unit} from 0")


def names(name: str, value: object) -> tuple[str, ...]:
    """One str, or several."""
    several = (value,) if isinstance(value, str) else value
    if isinstance(several, Iterable):
        several = tuple(several)
        if all(isinstance(each, str) for each in several):
            return several
    raise TypeError(f"{name} must be strings, not {value!r}")


def index(name: str, value: object) -> int:
    """An int, or what can be one, as numpy's are. TypeError, as concurrent.futures has it."""
    try:
        return operator.index(value)  # type: ignore[arg-type]  # that is what is asked
    except TypeError:
        raise TypeError(f"{name} must be a whole number, not {value!r}") from None


def arguments(name: str, value: object) -> tuple[Any, ...]:
    """A tuple or list as a tuple."""
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{name} must be a tuple, not {value!r}")
    return tuple(value)


def function(name: str, value: object) -> None:
    """None, or what can be called. TypeError, as concurrent.futures has it."""
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be a callable or None, not {value!r}")


def target(name: str, value: object) -> None:
    """As function(), or "package.module:function"."""
    if not isinstance(value, str):
        function(name, value)
    elif not all(value.partition(":")):
        raise ConfigurationError(f'{name} is {value!r}; allowed are callables and "package.module:function"')


def path(name: str, value: object) -> str:
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a path, not {value!r}")
    if not text:
        raise ConfigurationError(f"{name} is {value!r}; allowed are paths of files")
    return text


def instance(name: str, value: object, kind: type, or_none: bool = False) -> None:
    if not isinstance(value, kind) and not (or_none and value is None):
        none = " or None" if or_none else ""
        raise TypeError(f"{name} must be of type {kind.__name__}{none}, not {value!r}")
