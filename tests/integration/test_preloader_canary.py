# SPDX-License-Identifier: Apache-2.0
"""With a canary, the parent imports only what a canary has imported well."""

from __future__ import annotations

import os
import resource
import select
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from frostfork import (
    Canary,
    Installed,
    ModuleImport,
    Observation,
    Preloader,
    PreloadPolicy,
)
from tests.integration import hostile
from tests.integration.fresh import run_fresh

WAIT = 60


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that counts as installed."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("ffc_")]:
        del sys.modules[name]


def preloader(library: Path, names: list[str], **options: object) -> Preloader:
    policy = PreloadPolicy(Installed((str(library),), frozenset(names)), **options)
    return Preloader(policy, canary=Canary(seconds=2, memory=200 << 20))


def seen(library: Path, *names: str) -> Observation:
    return Observation(
        [
            ModuleImport(name, str(library / f"{name}.py"), float(i), 0.1, 0.2, None)
            for i, name in enumerate(names)
        ]
    )


def settled(loader: Preloader) -> list[str]:
    """What is imported until there is nothing left to try."""
    imported: list[str] = []
    while loader.trial is not None:
        assert select.select([loader.trial], [], [], WAIT)[0], "it takes too long"
        imported += loader.poll()
    return imported


def test_what_children_used_is_tried_and_then_imported(library: Path) -> None:
    good = [hostile.write(library, f"good_{i}", "") for i in range(3)]
    loader = preloader(library, good)
    assert loader.learn(seen(library, *good[:2])) == []
    assert not set(good) & set(sys.modules)
    assert loader.learn(seen(library, *good)) in (
        [],
        good[:1],
        good[:2],
    )  # the trial goes on, or is over already
    settled(loader)
    assert set(good) <= set(sys.modules)
    assert set(loader.report.preloaded) == set(good)
    assert loader.trial is None
    assert loader.learn(seen(library, *good)) == []


def test_what_is_hostile_stays_out_with_its_reason_and_the_parent_as_it_was(library: Path) -> None:
    chosen = ["crashed-segv", "exited-os", "hung-busy", "thread-python", "process-daemon", "signal-handler",
              "environment-set", "memory-grown"]  # fmt: skip
    bad = {
        hostile.write(library, which, hostile.EFFECTS[which][0]): which.partition("-")[0] for which in chosen
    }
    uses = {hostile.write(library, f"uses_{i}", f"import {name}"): name for i, name in enumerate(bad)}
    good = [hostile.write(library, f"good_{i}", "") for i in range(3)]
    names = [good[0], *bad, good[1], *uses, good[2]]
    loader = preloader(library, names)
    before = hostile.state()
    loader.ledger.record(seen(library, *names))
    assert sorted(loader.load()) == good
    after = hostile.state()
    assert after.pop("modules") == {*before.pop("modules"), *good}
    assert after == before
    for name, kind in bad.items():
        assert kind in loader.report.refused[name]
    for name, brings in uses.items():
        assert brings in loader.report.refused[name]
    assert loader.learn(seen(library, *names)) == []
    assert loader.trial is None, "nothing is tried twice"


def test_a_module_that_would_bring_a_refused_one_along_later_is_stopped_in_the_parent(library: Path) -> None:
    """What it imports may depend on what the parent has and the canary had not."""
    bad = hostile.write(library, "bad", hostile.EFFECTS["environment-set"][0])
    odd = hostile.write(library, "odd", f"import os\nif os.getpid() == {os.getpid()}:\n import {bad}")
    loader = preloader(library, [bad, odd])
    loader.ledger.record(seen(library, bad, odd))
    assert loader.load() == []
    assert loader.verdicts[odd].passed
    assert bad in loader.report.refused[odd]
    assert "FFC_SET" not in os.environ


def test_what_is_trusted_is_imported_whatever_it_does(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FFC_SET", raising=False)
    bad = hostile.write(library, "bad", hostile.EFFECTS["environment-set"][0])
    loader = preloader(library, [bad], trusted=(f"{bad}:environment",))
    loader.ledger.record(seen(library, bad))
    assert loader.load() == [bad]
    assert os.environ["FFC_SET"] == "1"
    del os.environ["FFC_SET"]


def test_what_is_denied_comes_along_neither_here_nor_in_the_canary(library: Path) -> None:
    ran = library / "ran"
    inner = hostile.write(library, "inner", f"open({str(ran)!r}, 'w')")
    outer = hostile.write(library, "outer", f"import {inner}")
    loader = preloader(library, [inner, outer], deny=(inner,))
    loader.ledger.record(seen(library, outer))
    assert loader.load() == []
    assert inner in loader.report.refused[outer]
    assert not ran.exists()


def test_to_wait_for_a_canary_is_bounded(library: Path) -> None:
    slow = hostile.write(library, "slow", "import time\ntime.sleep(1000)")
    loader = preloader(library, [slow])
    loader.ledger.record(seen(library, slow))
    assert loader.load(budget_seconds=0.2) == []
    assert loader.trial is not None
    loader.close()
    assert loader.trial is None
    assert not psutil.Process().children(recursive=True)


def test_a_canary_that_tells_nothing_is_not_sent_again(library: Path) -> None:
    names = [hostile.write(library, f"slow_{i}", "import time\ntime.sleep(1000)") for i in range(2)]
    policy = PreloadPolicy(Installed((str(library),), frozenset(names)))
    loader = Preloader(policy, canary=Canary(total_seconds=0.2))
    loader.ledger.record(seen(library, *names))
    assert loader.load() == []
    assert all("canary" in loader.report.refused[name] for name in names)
    assert loader.learn(seen(library, *names)) == []
    assert loader.trial is None


def test_a_shortage_of_a_moment_is_held_against_no_module(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("frostfork._trials._SECONDS_BETWEEN_TRIALS", 1.0)
    (name,) = [hostile.write(library, "unlucky", "")]
    loader = preloader(library, [name])
    # Descriptors enough to begin a trial, and none for its keeper.
    spare = [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(spare) + 1, hard))
    try:
        for fd in spare:
            os.close(fd)
        loader.learn(seen(library, name))
        assert loader.trial is not None
        settled(loader)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert name not in sys.modules
    end = time.monotonic() + WAIT
    while name not in sys.modules and time.monotonic() < end and name not in loader.report.refused:
        loader.poll()
        time.sleep(0.01)
    settled(loader)
    assert name in sys.modules, loader.report.refused


@pytest.mark.parametrize("canary", [True, False])
def test_a_name_that_the_folders_give_up_is_no_reason_any_more(library: Path, canary: bool) -> None:
    below, above = (hostile.write(library, "taken", ""), hostile.write(library, "taker", "import ffc_taken"))
    taken = {below}
    policy = PreloadPolicy(Installed((str(library),), frozenset({above, below})))
    loader = Preloader(policy, canary=Canary() if canary else None, local_names=lambda: frozenset(taken))
    assert loader.learn(seen(library, above)) == []
    settled(loader)
    assert "the DAG folder has" in loader.report.refused[above]
    taken.clear()
    loader.learn(seen(library, below, above))
    settled(loader)
    assert {above, below} <= set(loader.report.preloaded)
    assert loader.report.refused == {}


def test_a_warmup_tries_first() -> None:
    """One keeper is forked, and a module of the standard library is imported when its canary came back."""
    assert run_fresh("""
        import json, sys
        from frostfork import Ledger, ModuleImport, Observation, warmup
        import colorsys
        origin = colorsys.__file__
        del sys.modules["colorsys"]
        forks = []
        sys.addaudithook(lambda event, arguments: forks.append(event) if event == "os.fork" else None)
        ledger = Ledger()
        ledger.record(Observation([ModuleImport("colorsys", origin, 0.0, 0.1, 0.1, None)]))
        step = warmup(ledger, steps=["preload"]).steps["preload"]
        print(json.dumps([step.status, step.count, len(forks), "colorsys" in sys.modules]))
    """) == ["done", 1, 1, True]


def test_what_was_killed_for_any_reason_has_one_more_chance(library: Path) -> None:
    """As the kernel does to canaries when memory is short."""
    once = hostile.write(
        library,
        "killed_once",
        "import os\nif not os.path.exists(__file__ + '.was'):\n"
        "    open(__file__ + '.was', 'w').close()\n    os.kill(os.getpid(), 9)\n",
    )
    always = hostile.write(library, "killed_always", "import os\nos.kill(os.getpid(), 9)\n")
    loader = preloader(library, [once, always])
    loader.learn(seen(library, once, always))
    settled(loader)
    assert set(loader.report.preloaded) == {once}
    assert "SIGKILL" in loader.report.refused[always]
