# SPDX-License-Identifier: Apache-2.0
"""Verdicts: as data, and on their way through a journal."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from frostfork._records import decode, encode
from frostfork.preload.verdict import DESCRIPTIONS, ENDINGS, KINDS, Finding, Verdict, refusals

_text = st.text(st.characters(exclude_characters="\x1f\0", exclude_categories=["Cs"]))
_findings = st.builds(Finding, st.sampled_from(KINDS), _text, _text)
_verdicts = st.builds(
    Verdict,
    _text,
    st.lists(_findings, max_size=4).map(tuple),
    st.floats(0, 1e6),
    st.integers(0, 1 << 50),
)


@given(_verdicts)
def test_a_verdict_comes_back_as_it_was(verdict: Verdict) -> None:
    assert decode(encode(verdict)) == verdict


@given(st.text())
def test_what_a_module_writes_itself_is_no_error(text: str) -> None:
    assert decode(text) is None or isinstance(decode(text), Verdict)


def test_a_separator_within_a_finding_does_no_harm() -> None:
    verdict = Verdict("a", (Finding("raised", "x\x1fy", "a"),))
    assert decode(encode(verdict)) == Verdict("a", (Finding("raised", "x y", "a"),))


def test_only_a_verdict_without_findings_has_passed() -> None:
    assert Verdict("a").passed
    assert not Verdict("a", (Finding("thread", "left one"),)).passed


def test_each_kind_is_described() -> None:
    assert all(DESCRIPTIONS[kind] for kind in KINDS)
    assert set(KINDS) > ENDINGS


def test_what_merely_raised_may_be_imported_by_others() -> None:
    verdicts = [
        Verdict("good"),
        Verdict("raises", (Finding("raised", "ValueError", "raises"),)),
        Verdict("denied", (Finding("denied", "would import x", "x"),)),
        Verdict("known", (Finding("thread", "left one", "known"),)),
        Verdict("bad", (Finding("thread", "left one", "bad"), Finding("raised", "ValueError", "bad"))),
    ]
    assert refusals(verdicts, lambda module, _: module == "known") == {
        "bad": (Finding("thread", "left one", "bad"),)
    }
