# SPDX-License-Identifier: Apache-2.0
"""What canaries and their keeper write into a journal, and how it is read: a word and a text by turns.

canary: another one begins. try NAME: it begins with what was asked for. begin NAME, end NAME: an import, also one
within another. verdict TEXT. done: the canary ended by its own will. over: all is done.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from frostfork.journal import Journal
from frostfork.preload.verdict import Finding, Verdict


class Records:
    """What canaries have written, as far as it was read, and where the present one stands."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._position = 0
        self._rest = b""
        self._word: str | None = None
        self.verdicts: dict[str, Verdict] = {}
        self.asked: str | None = None  # the module that is being tried
        self.asked_at = 0.0  # when that was seen
        self.stack: list[str] = []  # imports that have begun and not ended
        self.finished = False  # the present canary ended by its own will
        self.over = False  # and the keeper

    def read(self) -> None:
        """What is new."""
        while part := os.pread(self._journal.fileno(), 1 << 20, self._position):
            self._position += len(part)
            *fields, self._rest = (self._rest + part).split(b"\0")
            for field in fields:  # a word and a text by turns
                if self._word is None:
                    self._word = field.decode("utf-8", "replace")
                else:
                    word, self._word = self._word, None
                    self._take(word, field.decode("utf-8", "surrogateescape"))

    def _take(self, word: str, text: str) -> None:
        if word == "canary":
            self.asked, self.stack, self.finished = None, [], False
        elif word == "try":
            self.asked, self.asked_at, self.stack = text, time.monotonic(), []
        elif word == "begin":
            self.stack.append(text)
        elif word == "end" and text in self.stack:
            del self.stack[self.stack.index(text) :]
        elif word == "verdict" and (verdict := decode(text)) is not None:
            self.verdicts.setdefault(verdict.module, verdict)
        elif word == "done":
            self.asked, self.finished = None, True
        elif word == "over":
            self.over = True

    def blame(self, kind: str, detail: str) -> list[Verdict]:
        """For the innermost import under way, and for all that contain it."""
        names = list(dict.fromkeys((*reversed(self.stack), *filter(None, (self.asked,)))))
        seconds = time.monotonic() - self.asked_at
        return [Verdict(name, (Finding(kind, detail, names[0]),), seconds) for name in names]


def encode(verdict: Verdict) -> str:
    """One text; what findings say may hold anything but the separators."""
    fields = [verdict.module, repr(verdict.seconds), str(verdict.bytes)]
    for finding in verdict.findings:
        fields += (part.replace("\x1f", " ") for part in finding)
    return "\x1f".join(fields)


def decode(text: str) -> Verdict | None:
    """The inverse; None for what a module wrote into the journal itself."""
    try:
        module, seconds, size, *rest = text.split("\x1f")
        findings = tuple(_triples(rest))
        return Verdict(module, findings, float(seconds), int(size))
    except ValueError:
        return None


def _triples(fields: list[str]) -> Iterator[Finding]:
    for at in range(0, len(fields), 3):
        kind, detail, module = fields[at : at + 3]
        yield Finding(kind, detail, module)
