# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of the tables, over a ledger made by hand."""

from __future__ import annotations

import pytest

from frostfork.observe import ModuleImport, Observation
from frostfork.preload import Ledger
from frostfork.preload.tables import Estimate, fit, preloaded_seconds, sample, tables


def imported(name: str, seconds: float, size: int = 0, error: str | None = None) -> ModuleImport:
    return ModuleImport(name, f"/site/{name}.py", 0.0, seconds, seconds, error, size, size)


def ledger() -> Ledger:
    known = Ledger()
    for path, modules in {
        "one.py": [imported("big", 2.0, 1000), imported("small", 0.5, 100)],
        "two.py": [imported("big", 4.0, 3000)],
        "three.py": [imported("own", 1.0), imported("missing", 0.0, 0, "ModuleNotFoundError")],
    }.items():
        known.record(Observation(modules, complete=True, wall_seconds=5.0), path)
    return known


DECISIONS = {
    "big": (True, "yes"), "small": (True, "yes"), "own": (False, "own"), "missing": (False, "failed"),
}  # fmt: skip


def made(estimate: Estimate | None = None):
    return tables(ledger(), DECISIONS, lambda name, origins: name.upper(), estimate or Estimate())


def test_a_module_has_its_files_sums_and_share() -> None:
    found = made()
    big = next(row for row in found.modules if row.name == "big")
    assert (big.files, big.children, big.bytes, big.distribution) == (2, 2, 2000, "BIG")
    assert big.seconds == pytest.approx(6.0)
    assert big.overlap == pytest.approx(2 / 3)
    assert found.modules[0] is big, "what saves most comes first"
    missing = next(row for row in found.modules if row.name == "missing")
    assert (missing.files, missing.failures, missing.seconds, missing.saving) == (0, 1, 0.0, 0.0)
    assert found.seconds == pytest.approx(7.5)


def test_the_savings_of_modules_distributions_and_files_are_the_same_sum() -> None:
    estimate = fit([(0.0, 1.0, 0.9), (3.0, 5.0, 1.0), (3.5, 6.0, 1.0)])
    found = made(estimate)
    assert found.saving == pytest.approx(sum(found.file_savings.values()))
    assert found.saving == pytest.approx(sum(row.saving for row in found.modules))
    assert found.saving == pytest.approx(sum(row.saving for row in found.distributions))
    # big takes 3 seconds on average: three.py imports nothing that is preloaded.
    assert found.file_savings == pytest.approx({"one.py": 5.0, "two.py": 4.0, "three.py": 0.1})


def test_the_overlap_has_files_that_import_alike_in_one_row() -> None:
    known = ledger()
    known.record(Observation([imported("big", 3.0)], complete=True), "four.py")
    rows = tables(known, DECISIONS, lambda name, origins: name.upper(), Estimate()).overlap
    assert [row.files for row in rows] == [("four.py", "two.py"), ("one.py",), ("three.py",)]
    assert rows[0].seconds == pytest.approx({"BIG": 3.0})


def test_the_estimate_is_what_was_measured_and_a_line_between() -> None:
    estimate = fit([(2.0, 3.0, 1.0), (0.0, 0.3, 0.2), (2.0, 4.0, 1.0), (1.0, 1.0, 0.5)])
    assert [each for point in estimate.points for each in point] == pytest.approx([0, 0.1, 1, 0.5, 2, 2.5])
    for seconds, saving in ((0.0, 0.1), (0.5, 0.3), (1.0, 0.5), (1.5, 1.5), (2.0, 2.5), (4.0, 5.0)):
        assert estimate.saving(seconds) == pytest.approx(saving)
    assert estimate.plain == pytest.approx(8.3 / 4)
    assert Estimate().saving(0.25) == 0.25, "without a file that was run both ways"
    assert fit([(1.0, 1.0, 2.0)]).saving(1.0) == 0.0, "a preload that costs saves nothing"


def test_a_sample_reaches_from_the_least_to_the_most() -> None:
    seconds = {f"{at:03}": float(at) for at in range(100)}
    chosen = sample(seconds, 5)
    assert len(chosen) == 5
    assert {"000", "099"} <= set(chosen)
    assert sample(seconds, 1000) == sorted(seconds)


def test_preloaded_seconds_are_those_of_the_plan() -> None:
    assert preloaded_seconds(ledger(), {"big"}) == pytest.approx(
        {"one.py": 3.0, "two.py": 3.0, "three.py": 0.0}
    )


def test_an_empty_ledger_has_empty_tables() -> None:
    found = tables(Ledger(), {}, lambda name, origins: "", Estimate())
    assert (found.files, found.modules, found.distributions, found.overlap, found.saving) == (
        0,
        [],
        [],
        [],
        0.0,
    )
