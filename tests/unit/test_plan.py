# SPDX-License-Identifier: Apache-2.0
"""Plans over a whole ledger: what comes along, what fits, and what users are told."""

from __future__ import annotations

import random
import time

import pytest

from frostfork.observe import ModuleImport, Observation
from frostfork.preload import Finding, Installed, Ledger, Plan, PreloadMode, PreloadPolicy, Verdict

NAMES = frozenset({"outer", "inner", "deep", "bad", "giant", "small", "pkg", "cudf"})
INSTALLED = Installed(("/lib",), NAMES)
MB = 256 * 4096  # in whole pages


def module(
    name: str, importer: str | None = None, *, seconds: float = 0.1, size: int = 0, error: str | None = None
) -> ModuleImport:
    return ModuleImport(name, f"/lib/{name}.py", 0.0, seconds, seconds, error, size, size, importer)


def ledger_of(*children: list[ModuleImport], threads: tuple[str, ...] = ()) -> Ledger:
    ledger = Ledger()
    for number, modules in enumerate(children):
        ledger.record(Observation(modules, complete=True, threads=list(threads)), f"/dags/{number}.py")
    return ledger


def plan(ledger: Ledger, **options: object) -> Plan:
    asked = {
        key: options.pop(key)
        for key in ("loaded", "preloaded", "local_names", "verdicts", "refused")
        if key in options
    }
    return PreloadPolicy(INSTALLED, **options).plan(ledger, **asked)


CHAIN = [module("outer"), module("inner", "outer"), module("deep", "inner")]


def test_importers_come_first_and_a_package_before_its_parts() -> None:
    parts = [module("pkg.part"), module("pkg", "pkg.part"), module("pkg.core", "pkg")]
    made = plan(ledger_of([*reversed(CHAIN)], parts))
    assert made.order == ["outer", "inner", "deep", "pkg", "pkg.core", "pkg.part"]
    assert all(decision.preload for decision in made.decisions.values())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"deny": ("deep",)}, "would import deep: denied by configuration"),
        ({"local_names": frozenset({"deep"})}, "would import deep: the DAG folder has a file or folder of this name"),
        ({"excluded": ("/lib",)}, "lies in a folder of the user's own code"),
        ({"refused": {"deep": "its distribution changed"}}, "would import deep: its distribution changed"),
        (
            {"verdicts": {"deep": Verdict("deep", (Finding("signal", "set the handler of SIGINT", "deep"),))}},
            "would import deep: in the canary, deep set the handler of SIGINT (signal)",
        ),
    ],
)  # fmt: skip
def test_what_may_not_come_along_keeps_its_importers_out(options: dict[str, object], reason: str) -> None:
    made = plan(ledger_of(CHAIN), **options)
    assert made.order == []
    assert made.decisions["outer"].reason == reason
    assert made.decisions["deep"].reason in reason


def test_an_import_that_leaves_a_thread_running_keeps_its_importers_out_unless_trusted() -> None:
    ledger = ledger_of(CHAIN, threads=("deep",))
    made = plan(ledger)
    assert made.order == []
    assert made.decisions["inner"].reason.startswith("would import deep: its import starts a thread")
    assert plan(ledger, trusted=("deep:signal",)).order == []
    assert plan(ledger, trusted=("deep:thread",)).order == ["outer", "inner", "deep"]


def test_what_an_installed_module_brings_from_elsewhere_keeps_it_out() -> None:
    settings = ModuleImport("settings", "/srv/dags/settings.py", 0.0, 0.1, 0.1, None, 0, 0, "outer")
    made = plan(ledger_of([module("outer"), settings]))
    assert made.decisions["outer"].reason == "would import settings: not from an installed distribution"


def test_a_failed_or_merely_raising_module_says_nothing_about_its_importers() -> None:
    optional = module("bad", "outer", error="ModuleNotFoundError")
    assert plan(ledger_of([module("outer"), optional]), deny=("bad",)).order == ["outer"]
    raised = {"inner": Verdict("inner", (Finding("raised", "raised KeyError", "inner"),))}
    assert plan(ledger_of(CHAIN), verdicts=raised).order == ["outer", "deep"]


def test_an_import_that_not_every_child_makes_is_the_childs_own() -> None:
    """Something around the import decided: in one child the module was imported, in the other not."""
    ledger = ledger_of([module("outer"), module("bad", "outer")], [module("outer")])
    assert plan(ledger, deny=("bad",)).order == ["outer"]
    always = ledger_of(*[[module("outer"), module("bad", "outer")]] * 2)
    assert plan(always, deny=("bad",)).order == []


def test_what_the_parent_has_is_not_brought_along() -> None:
    made = plan(ledger_of(CHAIN), deny=("deep",), loaded=["deep"])
    assert made.order == ["outer", "inner"]
    assert made.decisions["deep"].reason == "the parent has it without a preload"
    mine = plan(ledger_of(CHAIN), loaded=["deep"], preloaded=["deep", "unheard_of"]).decisions["deep"]
    assert (mine.preload, mine.reason) == (True, "the parent preloaded it")


def test_unsafe_modules_are_refused_with_their_importers_unless_trusted() -> None:
    ledger = ledger_of([module("outer"), module("cudf", "outer")])
    made = plan(ledger)
    assert made.order == []
    assert made.decisions["cudf"].reason.startswith(
        "known to be unsafe before a fork: it opens a CUDA context"
    )
    assert made.decisions["outer"].reason == f"would import cudf: {made.decisions['cudf'].reason}"
    assert plan(ledger, trusted=("cudf",)).order == ["outer", "cudf"]
    assert plan(ledger, trusted=("cudf:thread",)).order == []
    assert plan(ledger, trusted=("cudf",), deny=("cudf",)).order == []


def test_approved_modules_bring_along_what_they_import() -> None:
    made = plan(ledger_of(CHAIN), mode=PreloadMode.APPROVED, approved=("outer",))
    assert made.order == ["outer"]
    assert made.decisions["outer"].reason == "approved by configuration"
    assert made.decisions["deep"].preload
    assert made.decisions["deep"].reason == "comes along with outer"
    only = plan(ledger_of(CHAIN), mode=PreloadMode.APPROVED, approved=("inner",))
    assert only.order == ["inner"]
    assert only.decisions["outer"].reason == "not approved by configuration"


def test_a_one_off_giant_is_left_out() -> None:
    ledger = ledger_of([module("giant", size=400 * MB)], [module("small")], [module("small")])
    made = plan(ledger, min_children=2)
    assert made.order == ["small"]
    assert made.decisions["giant"].reason == "1 children imported it, fewer than min_children = 2"
    made = plan(ledger, min_files=2)
    assert made.order == ["small"]
    assert made.decisions["giant"].reason == "1 files import it, fewer than min_files = 2"


def test_savings_and_bytes_are_means() -> None:
    ledger = ledger_of(
        [module("small", seconds=0.5, size=4 * MB)], [module("small", seconds=0.25, size=2 * MB)], []
    )
    decision = plan(ledger).decisions["small"]
    assert decision.saving == pytest.approx(0.25)
    assert decision.bytes == 3 * MB


def test_budgets_take_what_saves_most_for_its_bytes() -> None:
    ledger = ledger_of(
        [module("giant", seconds=1.0, size=90 * MB), module("small", seconds=0.5, size=20 * MB)],
        [module("small", seconds=0.5, size=20 * MB)],
    )
    made = plan(ledger, max_bytes=100 * MB)
    assert made.order == ["small"]
    assert made.bytes == 20 * MB
    assert made.decisions["giant"].reason == (
        "with what it imports it would take 94.4 MB of the parent's memory,"
        " and 83.9 MB of max_bytes (104.9 MB) are left"
    )
    assert plan(ledger, max_bytes=110 * MB).order == ["giant", "small"]
    slow = plan(ledger, max_seconds=0.6)
    assert slow.order == ["small"]
    assert slow.decisions["giant"].reason == (
        "with what it imports it would take the parent 1.000 s, and 0.100 s of max_seconds (0.6 s) are left"
    )


def test_budgets_count_what_comes_along_and_what_was_preloaded_before() -> None:
    chain = [module("outer", size=MB), module("inner", "outer", size=50 * MB), module("small", size=10 * MB)]
    made = plan(ledger_of(chain), max_bytes=40 * MB)
    assert made.order == ["small"]
    assert "it would take 53.5 MB" in made.decisions["outer"].reason
    later = plan(ledger_of(chain), max_bytes=55 * MB, loaded=["inner"], preloaded=["inner"])
    assert later.order == ["outer"]
    assert later.bytes == 51 * MB
    assert plan(ledger_of(chain), max_bytes=55 * MB, loaded=["inner"]).order == ["outer", "small"]


def test_off_decides_the_same_about_all() -> None:
    made = plan(ledger_of(CHAIN), mode=PreloadMode.OFF)
    assert made.order == []
    assert {decision.reason for decision in made.decisions.values()} == {"preload is off"}


@pytest.mark.parametrize("options", [{}, {"max_bytes": 2 * 10**9, "max_seconds": 1.0}])
def test_ten_thousand_modules_are_planned_in_a_moment(options: dict[str, object]) -> None:
    """Each imports some that came before it, so what one brings along is most of them."""
    choose = random.Random(4)
    ledger = Ledger()
    names = [f"m{number:05}" for number in range(10_000)]
    children: list[list[ModuleImport]] = [[] for _ in range(5)]
    for at, name in enumerate(names):
        for child in children:
            importer = names[choose.randrange(max(0, at - 300), at)] if at else None
            child.append(module(name, importer, seconds=choose.random(), size=choose.randrange(MB)))
    for modules in children:
        ledger.record(Observation(modules, complete=True))
    policy = PreloadPolicy(Installed(("/lib",), frozenset(names)), **options)
    start = time.process_time()
    made = policy.plan(ledger)
    seconds = time.process_time() - start
    assert made.order
    assert seconds < 2  # 0.2 to 0.6 on a machine of 2026


def test_what_the_parent_has_long_had_is_worth_what_it_was() -> None:
    """Children of a.py import `outer` until the parent does; all that time b.py imports `small`, which is refused."""
    ledger = Ledger()
    for number in range(100):
        modules = [module("outer", seconds=0.5, size=MB)] if number < 2 else []
        ledger.record(Observation(modules, complete=True), "/dags/a.py")
        ledger.record(Observation([module("small", seconds=0.1, size=MB)], complete=True), "/dags/b.py")
    made = plan(ledger, max_bytes=MB)
    assert made.order == ["outer"]  # after a restart as before it
    assert made.decisions["outer"].saving == pytest.approx(0.25)
    assert made.decisions["small"].saving == pytest.approx(0.05)
