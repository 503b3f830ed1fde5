# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of the demo, on numbers that can be checked by hand."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from frostfork.airflow.measure.phases import (
    LEAST_LEARNING_ROUNDS,
    MOST_LEARNING_ROUNDS,
    learning_rounds,
    round_of,
    sampling_done,
    sampling_due,
)
from frostfork.airflow.measure.summary import (
    FIGURES,
    ChildMemory,
    Measured,
    Parse,
    TreeMemory,
    balanced,
    per_child,
    percentile,
    ratio,
    summarize,
)

ROUNDS = 2


def _parse(path: str, end: float, seconds: float = 1.0, **counters: float) -> Parse:
    values = {"cpu": 0.0, "faults": 0.0, "manager_cpu": 0.0, "child_seconds": seconds / 2, **counters}
    return Parse(path, int(end * 10), end - seconds, end, seconds, **values)


def _measured(scale: float = 1.0) -> Measured:
    """Two files, 2 learning, 2 timed and 2 memory rounds, a parse ending every second; b takes twice as long."""
    measured = Measured(settled_from=0)
    for index in range(12):
        path = "ab"[index % 2]
        seconds = (9.0 if index < 4 else 0.5 + 0.5 * (path == "b")) * scale
        end = (index + 1.0) * scale
        measured.parses.append(_parse(path, end, seconds, cpu=0.1 * scale, faults=100 * scale))
    measured.sampled_from = 8
    for index in range(8, 12):
        parse = measured.parses[index]
        seen = parse.end - 0.1 * scale
        private = round((1000 if parse.path == "a" else 3000) * scale)
        measured.children.append(ChildMemory(parse.pid, seen, private, 2 * private, unshared=7))
        measured.trees.append(TreeMemory(seen, round((5000 + index) * scale)))
    measured.manager_rss = [100, 130, 120]
    return measured


def test_counters_become_differences() -> None:
    grown = [
        _parse("a", 1, cpu=2.0, faults=10, manager_cpu=1.0),
        _parse("b", 2, cpu=2.5, faults=25, manager_cpu=4.0),
    ]
    first, second = per_child(grown)
    assert (first.cpu, first.faults, first.manager_cpu) == (2.0, 10, 1.0)
    assert (second.cpu, second.faults, second.manager_cpu) == (0.5, 15, 3.0)


def test_a_childs_own_seconds_are_of_those_that_told_their_end() -> None:
    measured = Measured(settled_from=0)
    for index in range(6):
        own = 0.25 if index == 4 else None  # the others were killed
        parse = _parse("a", index + 1.0)
        measured.parses.append(replace(parse, child_seconds=own))
    result = summarize(measured, {}, ROUNDS + 2)
    assert result["child_seconds"] == pytest.approx(0.25)
    assert result["spread"]["child_seconds"] == [0.25, 0.25]


def test_each_file_weighs_the_same() -> None:
    assert balanced([("a", 1.0), ("a", 3.0), ("b", 6.0)]) == 4.0
    assert balanced([]) is None


def test_percentile_is_a_value_that_was_measured() -> None:
    assert percentile([5.0], 0.95) == 5.0
    assert percentile(list(range(1, 101)), 0.95) == 95
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0


def test_rounds_count_whole_laps() -> None:
    assert round_of([]) == 0
    assert round_of(["a", "b"]) == 1
    assert round_of(["a", "b", "a"]) == 1


def test_sampling_waits_for_the_timed_rounds() -> None:
    lap = ["a", "b", "c"]
    whole = lap * (LEAST_LEARNING_ROUNDS + ROUNDS)
    assert not sampling_due([], ROUNDS, 0)
    assert not sampling_due(whole[:-1], ROUNDS, 0)
    assert sampling_due(whole, ROUNDS, 0)


def test_learning_ends_with_a_round_and_has_its_least_and_most() -> None:
    assert learning_rounds(3, 0) == LEAST_LEARNING_ROUNDS
    assert learning_rounds(3, 12) == 4
    assert learning_rounds(3, 13) == 5
    assert learning_rounds(3, 1000) == learning_rounds(3, None) == MOST_LEARNING_ROUNDS


def test_the_timed_rounds_begin_when_nothing_is_left_to_learn() -> None:
    measured = _measured()
    measured.settled_from = 5  # in the third round, so that the timed ones begin with the fourth
    result = summarize(measured, {}, 1)
    assert result["learning"] == {"rounds": 3, "seconds": 14.0, "seconds_per_file": 6.25, "settled": True}
    assert result["seconds_per_file"] == pytest.approx(0.75)
    assert sampling_due(["a", "b"] * 4, 1, 5)
    assert not sampling_due(["a", "b"] * 3, 1, 5)
    measured.settled_from = None
    assert not summarize(measured, {}, 1)["learning"]["settled"]


def test_sampling_waits_for_a_file_that_sat_out_but_not_for_ever() -> None:
    # c was parsed while learning and never again.
    paths = ["a", "b", "c"] * LEAST_LEARNING_ROUNDS + ["a", "b"] * 3
    assert not sampling_due(paths, ROUNDS, 0)
    assert sampling_due([*paths, "c"], ROUNDS, 0)
    assert not sampling_due([*paths, "a", "b"], ROUNDS, 0)
    assert sampling_due([*paths, "a", "b", "a"], ROUNDS, 0)


def test_sampling_ends() -> None:
    assert not sampling_done(3, 2, 2)
    assert sampling_done(4, 2, 2)
    assert not sampling_done(7, 1, 2)
    assert sampling_done(8, 1, 2)


def test_spread_holds_the_mean_where_files_sit_rounds_out() -> None:
    measured = _measured()
    slow, quick = measured.parses[5], measured.parses[6]
    measured.parses[5:7] = [
        Parse("a", slow.pid, slow.start, slow.end, 0.6, 0, 0, 0),
        Parse("b", quick.pid, quick.start, quick.end, 1.2, 0, 0, 0),
    ]
    result = summarize(measured, {}, ROUNDS)
    least, most = result["spread"]["seconds_per_file"]
    assert result["seconds_per_file"] == pytest.approx(0.825)
    assert [least, most] == pytest.approx([0.825, 0.825])


def test_figures_leave_out_learning_and_sampled_rounds() -> None:
    result = summarize(_measured(), {"a": "plain", "b": "pandas"}, ROUNDS)
    assert result["seconds_per_file"] == pytest.approx(0.75)
    assert result["seconds_median"] == pytest.approx(0.75)
    assert result["seconds_p95"] == pytest.approx(1.0)
    assert result["round_seconds"] == pytest.approx(2.0)
    assert result["cpu_seconds"] == pytest.approx(0.1)
    assert result["page_faults"] == pytest.approx(100)
    assert result["private_bytes"] == pytest.approx(2000)
    assert result["unshared_pages"] == pytest.approx(7)
    assert result["parent_growth_bytes"] == 20
    assert (result["files"], result["parses"], result["unparsed"]) == (2, 12, [])


def test_peak_is_the_mean_of_the_rounds_peaks() -> None:
    result = summarize(_measured(), {}, ROUNDS)
    assert result["peak_pss_bytes"] == pytest.approx((5009 + 5011) / 2)
    assert result["spread"]["peak_pss_bytes"] == [5009, 5011]


def test_kinds_have_the_same_figures() -> None:
    result = summarize(_measured(), {"a": "plain", "b": "pandas"}, ROUNDS)
    assert set(result["kinds"]) == {"plain", "pandas"}
    assert result["kinds"]["plain"]["seconds_per_file"] == pytest.approx(0.5)
    assert result["kinds"]["pandas"]["round_seconds"] == pytest.approx(1.0)
    assert result["kinds"]["pandas"]["private_bytes"] == pytest.approx(3000)
    assert result["kinds"]["pandas"]["peak_pss_bytes"] == 6000
    assert all(set(FIGURES) <= set(part) for part in result["kinds"].values())


def test_without_a_manifest_there_is_one_kind() -> None:
    assert set(summarize(_measured(), {}, ROUNDS)["kinds"]) == {"all"}


def test_work_of_others_is_told() -> None:
    measured = _measured()
    assert summarize(measured, {}, ROUNDS)["foreign_cpu_share"] is None
    # Four parses of 0.1 CPU seconds between the marks, and 0.5 seconds on the machine.
    measured.busy = [(4, 10.0), (8, 10.5)]
    assert summarize(measured, {}, ROUNDS)["foreign_cpu_share"] == pytest.approx(0.2)


def test_dags_are_those_of_each_files_last_parse() -> None:
    measured = Measured()
    found = (("a", 1), ("b", 2), ("a", 100), ("b", None))
    measured.parses = [Parse(path, 1, 0, 1, 1, 0, 0, 0, dags) for path, dags in found]
    assert summarize(measured, {}, ROUNDS)["dags"] == 100


def test_a_file_without_a_record_is_named() -> None:
    assert summarize(_measured(), {"a": "plain", "b": "plain", "c": "exit"}, ROUNDS)["unparsed"] == ["c"]


def test_a_pid_that_comes_again_is_told_apart_by_time() -> None:
    measured = _measured()
    stranger = ChildMemory(measured.parses[-1].pid, 1.0, 10**9, 10**9)
    measured.children.append(stranger)
    assert summarize(measured, {}, ROUNDS)["private_bytes"] == pytest.approx(2000)


def test_a_child_that_had_not_run_yet_says_nothing() -> None:
    measured = _measured()
    for child in measured.children[::2]:  # those of a
        child.private = child.pss = 0
    result = summarize(measured, {"a": "exit", "b": "pandas"}, ROUNDS)
    assert result["kinds"]["exit"]["private_bytes"] is None
    assert result["private_bytes"] == pytest.approx(3000)


def test_unknown_memory_stays_unknown() -> None:
    measured = _measured()
    measured.children, measured.trees, measured.manager_rss = [], [], []
    measured.notes = ["memory could not be read: Permission denied"]
    result = summarize(measured, {}, ROUNDS)
    for name in ("private_bytes", "peak_pss_bytes", "unshared_pages", "parent_growth_bytes"):
        assert result[name] is None
    assert result["spread"]["private_bytes"] is None
    assert result["notes"] == measured.notes
    assert ratio(result, result)["private_bytes"] is None
    assert ratio(result, result)["seconds_per_file"] == 1.0


def test_ratio_is_frostfork_over_stock() -> None:
    kinds = {"a": "plain", "b": "pandas"}
    stock, half = summarize(_measured(), kinds, ROUNDS), summarize(_measured(0.5), kinds, ROUNDS)
    factors = ratio(stock, half)
    for name in FIGURES:
        assert factors[name] == pytest.approx(0.5), name
        assert factors["kinds"]["pandas"][name] == pytest.approx(0.5), name
    assert ratio({"cpu_seconds": 0}, {"cpu_seconds": 1})["cpu_seconds"] is None


def test_nothing_was_recorded() -> None:
    result = summarize(Measured(), {}, ROUNDS)
    assert result["files"] == 0
    assert result["seconds_per_file"] is None
    assert result["kinds"] == {}


def test_names_in_brackets_are_no_markup() -> None:
    console = pytest.importorskip("rich.console").Console(file=io.StringIO(), width=200)
    from frostfork.airflow.measure import report

    summary = summarize(_measured(), {"a": "[bold]", "b": "[/blue]", "[/green]/c.py": "rest"}, ROUNDS)
    result = {
        "stock": summary,
        "frostfork": summary,
        "ratio": ratio(summary, summary),
        "preload": {"preloaded": [], "refused": {"[italic]": "of [/red]"}},
        "warmups": [],
        "files": 2,
        "rounds": ROUNDS,
        "environment": dict.fromkeys(("cores", "kernel", "python", "airflow", "processes"), 1),
    }
    report.show(result, console)
    text = console.file.getvalue()
    for part in ("[bold]", "[/blue]", "no result of [/green]/c.py.", "Not preloaded: [italic] (of [/red])."):
        assert part in text
