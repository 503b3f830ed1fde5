# SPDX-License-Identifier: Apache-2.0
"""Reports of blame as data: sums, JSON, text."""

from __future__ import annotations

import json

import pytest

from frostfork import BlameReport, ObservationError
from frostfork.blame import CAUSES, Owner, Share


def report(code: Share, owners: list[Owner], floor: int) -> BlameReport:
    causes = {name: Share(0, 0, 0, 0) for name in CAUSES}
    causes["code"] = code
    causes["unchanged"] = Share(10, 10, 10, 0)
    return BlameReport(causes, owners, {"heap": 12}, floor=floor, new=5, dropped=1, processes=1)


ONE = report(Share(2, 3, 1, 5000), [Owner("code", "a.py", 2, 4000), Owner("types", "T", 1, 1000)], 2)
TWO = report(Share(4, 4, 4, 900), [Owner("code", "a.py", 1, 100), Owner("code", "b.py", 3, 4500)], 1)


def test_totals() -> None:
    both = BlameReport.total([ONE, TWO])
    assert both.causes["code"] == Share(6, 7, 5, 5900)
    assert both.unshared == 26
    assert both.changed_bytes == 5900
    assert (both.floor, both.new, both.dropped, both.processes) == (3, 10, 2, 2)
    assert both.by_kind == {"heap": 24}
    assert both.owners == [
        Owner("code", "b.py", 3, 4500),
        Owner("code", "a.py", 3, 4100),
        Owner("types", "T", 1, 1000),
    ]
    assert ONE.unshared == 12  # the parts are left as they were
    assert BlameReport.total([]) == BlameReport()


def test_json_is_inverted() -> None:
    assert BlameReport.from_json(ONE.to_json()) == ONE
    assert BlameReport.from_json(TWO.to_json().decode()) != ONE


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"format": 2}',
        b'{"format": 1, "causes": {}}',
        b"\xff",
        pytest.param(b"[" * 10**6, id="deep"),
    ],
)
def test_anything_else_is_no_report(data: bytes) -> None:
    with pytest.raises(ObservationError, match="not a blame report"):
        BlameReport.from_json(data)


def changed(*path: str | int, to: object) -> bytes:
    """ONE with one value changed."""
    values = place = json.loads(ONE.to_json())
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return json.dumps(values).encode()


@pytest.mark.parametrize("wrong", ["x", 1.5, -1, True, None, float("nan"), [1]])
@pytest.mark.parametrize(
    "path",
    [
        *(("floor",), ("new",), ("dropped",), ("processes",), ("by_kind", "heap")),
        *(("causes", "code", "pages"), ("causes", "stack", "bytes"), ("owners", 0, "pages")),
    ],
)
def test_counts_are_whole_numbers_from_0(path: tuple[str | int, ...], wrong: object) -> None:
    assert BlameReport.from_json(changed(*path, to=7)) != ONE
    with pytest.raises(ObservationError, match=r"not a blame report: .* is no count"):
        BlameReport.from_json(changed(*path, to=wrong))


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        (("causes", "weather"), Share(1, 1, 1, 1)._asdict()),
        (("owners", 0, "cause"), "weather"),
        (("owners", 0, "cause"), ["code"]),
        (("owners", 0, "name"), 5),
        (("owners",), {}.fromkeys("ab")),
        (("by_kind",), None),
        (("by_kind",), [1]),
        (("complete",), 1),
        (("complete",), None),
        (("causes",), None),
        (("causes", "code"), [1, 2, 3, 4]),
        (("extra",), 1),
        (("format",), 2),
    ],
)
def test_other_values_are_no_report(path: tuple[str | int, ...], wrong: object) -> None:
    with pytest.raises(ObservationError, match="not a blame report"):
        BlameReport.from_json(changed(*path, to=wrong))


@pytest.mark.parametrize("field", json.loads(ONE.to_json()))
def test_a_report_has_all_fields(field: str) -> None:
    values = json.loads(ONE.to_json())
    del values[field]
    with pytest.raises(ObservationError, match="not a blame report"):
        BlameReport.from_json(json.dumps(values))


def test_a_report_of_an_earlier_version_may_lack_a_cause() -> None:
    values = json.loads(ONE.to_json())
    del values["causes"]["stack"]
    assert BlameReport.from_json(json.dumps(values)) == ONE


def test_text_names_causes_that_occur() -> None:
    lines = str(ONE).splitlines()
    assert lines[0] == "12 unshared pages; 5000 bytes changed, which would fit in 2"
    assert [line.split()[0] for line in lines[2:]] == ["code", "unchanged"]
