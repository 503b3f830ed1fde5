# SPDX-License-Identifier: Apache-2.0
"""What a probe is, and the words that probes share.

Objects are compared by identity, and kept until then: their own `==` is foreign code.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

Effect = tuple[str, str]  # kind, detail


class Probe(NamedTuple):
    """take() looks; explain(before, after) says what differs."""

    take: Callable[[], Any]
    explain: Callable[[Any, Any], Iterator[Effect]]


class Identities(tuple[object, ...]):
    """Equal only if each element is the very same."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Identities) and len(self) == len(other) and all(map(operator.is_, self, other))
        )

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # type: ignore[assignment]

    def without(self, other: Identities) -> list[object]:
        return [thing for thing in self if not any(thing is each for each in other)]


def named(thing: object) -> str:
    """A name for people, without foreign code's own repr."""
    if thing is None or isinstance(thing, (bool, int, float, str)):
        return repr(thing)[:100]
    try:
        module, name = thing.__module__, thing.__qualname__  # type: ignore[attr-defined]
        if isinstance(name, str):
            return f"{module}.{name}" if isinstance(module, str) else name
    except Exception:  # noqa: S110 - a __getattr__ of its own
        pass
    return f"an object of {type(thing).__module__}.{type(thing).__qualname__}"


def becomes(kind: str, words: str) -> Callable[[Any, Any], Iterator[Effect]]:
    def explain(before: object, after: object) -> Iterator[Effect]:
        yield kind, words.format(before=before, after=after)

    return explain


def labelled(kind: str, labels: tuple[str, ...]) -> Callable[[Any, Any], Iterator[Effect]]:
    def explain(before: Identities, after: Identities) -> Iterator[Effect]:
        for label, old, new in zip(labels, before, after, strict=True):
            if old is not new:
                yield kind, f"set {label} to {named(new)}"

    return explain


def read(path: str) -> str | None:
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return None
