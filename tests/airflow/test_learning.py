# SPDX-License-Identifier: Apache-2.0
"""What the DAG processor's parent imports, and what it leaves alone: real runs over installed and local modules.

Modules and DAG files write down what happens to them, in a log that says by the process context, which Airflow sets,
whether it was in the parent. So the tests need not believe the parent's own report.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.airflow.processor import (
    REPORTING,
    Home,
    dag,
    install,
    run_together,
    site_environment,
    write,
)

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(600)]
pytest.importorskip("airflow")

ROUNDS = 2  # the first is learned from
TIMEOUT = 8  # seconds for a file; long enough to import numpy on a busy machine

# The first lines of every module: who is imported, and where.
NOTE = """import json, os
where = {"server": "parent", "client": "child"}.get(os.environ.get("_AIRFLOW_PROCESS_CONTEXT"), "start")
with open(os.environ["LOG"], "a") as log:
    log.write(json.dumps({"module": __name__, "file": __file__, "in": where, "pid": os.getpid()}) + "\\n")
"""
INSTALLED = {
    "ff_good.py": NOTE + "VALUE = 'installed'\n",
    "ff_pack/__init__.py": NOTE,
    "ff_pack/part.py": NOTE,
    "ff_denied.py": NOTE,
    "ff_shadowed.py": NOTE + "VALUE = 'installed'\n",
    "ff_zip_shadowed.py": NOTE + "VALUE = 'installed'\n",
    "ff_fails.py": NOTE + "raise ValueError('wherever it is imported')\n",
    "ff_parent_raises.py": NOTE + "if where == 'parent': raise ValueError('not here')\n",
    "ff_parent_exits.py": NOTE + "if where == 'parent': raise SystemExit(3)\n",
    "ff_parent_interrupts.py": NOTE + "if where == 'parent': raise KeyboardInterrupt\n",
    "ff_before_hang.py": NOTE,
    # As some clients of metrics and feature flags do; a forked child has none of its parent's threads.
    "ff_thread.py": NOTE
    + "import queue, threading\n"
    + "asked, told = queue.Queue(), queue.Queue()\n"
    + "def answer():\n    while True: told.put(asked.get())\n"
    + "threading.Thread(target=answer, daemon=True).start()\n"
    + "def ask():\n    asked.put('answer')\n    try: return told.get(timeout=2)\n"
    + "    except queue.Empty: return 'nothing'\n",
}


def using(name: str, *modules: str, before: tuple[str, ...] = (), after: tuple[str, ...] = ()) -> str:
    """A DAG file that imports modules, and notes first which of them it was born with."""
    return dag(
        name,
        "import json, os, sys, time",
        f"names = {list(modules)!r}",
        "had = [name for name in names if name in sys.modules]",
        *before,
        *(f"import {module}" for module in modules),
        "got = {name: getattr(sys.modules[name], 'VALUE', None) for name in names}",
        f"def tell(what): write({{'dag': {name + ' said'!r}, 'what': what}})",
        "def write(note):",
        "    with open(os.environ['LOG'], 'a') as log: log.write(json.dumps(note) + '\\n')",
        f"write({{'dag': {name!r}, 'had': had, 'got': got, 'pid': os.getpid()}})",
        *after,
    )


HERE = "sys.path.insert(0, os.path.dirname(__file__))"
HANG_ONCE = (
    "if not os.path.exists(os.environ['LOG'] + '.hung'):",
    "    open(os.environ['LOG'] + '.hung', 'w').close()",
    "    time.sleep(600)",
)
TOLERANT = "\n".join(
    ("try:", "    import ff_fails", "except ValueError:", "    pass")
)  # the child lives on; the module is not in it
RANDOM = ("tell(str(numpy.random.random()))",)
DAGS = {
    "good_1.py": using("good_1", "ff_good", "ff_pack.part"),
    "good_2.py": using("good_2", "ff_good", "ff_pack", "ff_shadowed", "ff_zip_shadowed"),
    "denied.py": using("denied", "ff_denied"),
    "fails.py": using("fails", before=(TOLERANT,)),
    "only_1.py": using("only_1", "ff_parent_raises", "ff_parent_exits", "ff_parent_interrupts"),
    "only_2.py": using("only_2", "ff_parent_raises", "ff_parent_exits", "ff_parent_interrupts"),
    "random_1.py": using("random_1", "numpy.random", after=RANDOM),
    "random_2.py": using("random_2", "numpy.random", after=RANDOM),
    "thread_1.py": using("thread_1", "ff_thread", after=("tell(ff_thread.ask())",)),
    "thread_2.py": using("thread_2", "ff_thread", after=("tell(ff_thread.ask())",)),
    "hangs.py": using("hangs", "ff_before_hang", "numpy", after=HANG_ONCE),
    "uses_local.py": using("uses_local", "ff_local", "sub.ff_deep", "ff_plugin", "ff_editable", "ff_config"),
    "ff_local.py": NOTE,
    "sub/__init__.py": "",
    "sub/ff_deep.py": NOTE,
    "shadow/shadow.py": using("shadow", "ff_shadowed", before=(HERE,)),
    "shadow/ff_shadowed.py": NOTE + "VALUE = 'local'\n",
    ".airflowignore": "ff_*\n",
}
ZIPPED = {
    "zipped.py": using("zipped", "ff_zip_lib", "ff_zip_shadowed"),
    "ff_zip_lib.py": NOTE,
    "ff_zip_shadowed.py": NOTE + "VALUE = 'zipped'\n",
}
SMALL = {"small.py": DAGS["good_1.py"]}


@dataclass(frozen=True)
class Run:
    report: dict[str, Any]
    imports: list[dict[str, Any]]  # modules that were executed
    parses: list[dict[str, Any]]  # DAG files that were
    out: str

    def in_parent(self, *modules: str) -> list[str]:
        """Imports of these modules, or of all of ours, in the parent, in order."""
        found = [note["module"] for note in self.imports if note["in"] == "parent"]
        assert all(n["pid"] == self.report["parent"] for n in self.imports if n["in"] == "parent")
        return [name for name in found if not modules or name in modules]

    def parsed(self, name: str) -> list[dict[str, Any]]:
        return [note for note in self.parses if note["dag"] == name]


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site prefix with two distributions, one of them editable: its module lies elsewhere."""
    prefix = tmp_path_factory.mktemp("prefix")
    install(prefix, "ff_test", INSTALLED)
    source = prefix / "checkout" / "src"
    write(source, {"ff_editable.py": NOTE})
    install(prefix, "ff_editable", {"ff_editable.pth": f"{source}\n"}, editable=["ff_editable"])
    return prefix


def run(prefix: Path, migrated: Path, *plans: tuple[Home, Path, dict[str, str]]) -> list[Run]:
    """Run ours over folders with settings, at the same time.

    Without a canary and after one child: these tests are about the parent's own caution.
    """
    runs = {}
    for home, dags, settings in plans:
        log = home.path / "log"
        at_once = {"frostfork__canary": "False", "frostfork__min_children": "1"}
        environment = home.environment(dags, LOG=str(log), **site_environment(prefix), **at_once, **settings)
        runs[str(home.path)] = ((*REPORTING, "--num-runs", str(ROUNDS)), environment)
    done = run_together(runs)
    found = []
    for home, _, _ in plans:
        processor = done[str(home.path)]
        output = processor.out + processor.err
        assert processor.wait() == 0, output[-6000:]
        notes = [json.loads(line) for line in (home.path / "log").read_text().splitlines()]
        imports = [note for note in notes if "module" in note]
        found.append(Run(home.report(), imports, [note for note in notes if "dag" in note], output))
    return found


@pytest.fixture(scope="module")
def by_parent(prefix: Path, migrated_home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """The default mode, with one module denied, over the whole folder: from a zygote, and from the manager."""
    scratch = tmp_path_factory.mktemp("learned")
    write(scratch / "dags", DAGS)
    with zipfile.ZipFile(scratch / "dags" / "zipped.zip", "w") as archive:
        for name, text in ZIPPED.items():
            archive.writestr(name, text)
    plans = []
    for zygote in ("True", "False"):
        home = Home.make(migrated_home, scratch / f"home-{zygote}")
        # Airflow itself imports what is in there, but for what this names.
        write(home.path / "plugins", {"ff_plugin.py": NOTE, ".airflowignore": "ff_*\n"})
        write(home.path / "config", {"ff_config.py": NOTE})
        settings = {
            "dag_processor__dag_file_processor_timeout": str(TIMEOUT),
            "frostfork__deny": "ff_denied, x.*",
            "frostfork__zygote": zygote,
        }
        plans.append((home, scratch / "dags", settings))
    first, second = run(prefix, migrated_home, *plans)
    return {"zygote": first, "manager": second}


@pytest.fixture(params=["zygote", "manager"])
def learned(request: pytest.FixtureRequest, by_parent: dict[str, Run]) -> Run:
    found = by_parent[request.param]
    assert (found.report["parent"] == found.report["pid"]) is (request.param == "manager")
    return found


@pytest.fixture(scope="module")
def modes(prefix: Path, migrated_home: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """(approved, off) over one file."""
    scratch = tmp_path_factory.mktemp("modes")
    write(scratch / "dags", SMALL)
    approved = {
        "frostfork__preload": "approved",
        "frostfork__approved": "ff_pack, numpy",
        "frostfork__deny": "ff_pack.part",
    }
    homes = [Home.make(migrated_home, scratch / name) for name in ("approved", "off")]
    plans = [
        (homes[0], scratch / "dags", approved),
        (homes[1], scratch / "dags", {"frostfork__preload": "off"}),
    ]
    first, second = run(prefix, migrated_home, *plans)
    return first, second


def test_what_children_import_is_in_the_parent(learned: Run) -> None:
    assert "ff_good" in learned.report["preloaded"]
    for name in ("ff_good", "ff_pack", "ff_pack.part"):
        assert learned.in_parent(name) == [name]  # once
    parses = learned.parsed("good_1")
    assert len(parses) == ROUNDS
    assert parses[-1]["had"] == ["ff_good", "ff_pack.part"]


def test_a_module_is_imported_by_a_child_first(learned: Run) -> None:
    """The canary: never the parent before any child."""
    seen = set()
    for note in learned.imports:
        if note["in"] == "parent":
            assert note["module"] in seen
        seen.add(note["module"])


def test_denied(learned: Run) -> None:
    assert learned.in_parent("ff_denied") == []
    assert learned.report["refused"]["ff_denied"] == "denied by configuration"
    assert [parse["had"] for parse in learned.parsed("denied")] == [[]] * ROUNDS


def test_a_child_killed_for_its_time_is_learned_from(learned: Run) -> None:
    assert "exceeding the timeout" in learned.out
    hung, second, *_ = learned.parsed("hangs")
    assert "ff_before_hang" not in hung["had"]  # numpy may have come from another file's child by then
    assert second["had"] == ["ff_before_hang", "numpy"]
    assert "ff_before_hang" in learned.report["preloaded"]


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("ff_parent_raises", "failed in the parent: ValueError: not here"),
        ("ff_parent_exits", "failed in the parent: SystemExit: 3"),
        ("ff_parent_interrupts", "failed in the parent: KeyboardInterrupt"),
    ],
)
def test_a_failure_in_the_parent_is_remembered(learned: Run, module: str, reason: str) -> None:
    assert learned.report["refused"][module].rstrip(": ") == reason
    assert learned.in_parent(module) == [module]  # one attempt, though every child of every round imported it
    for name in ("only_1", "only_2"):
        assert [parse["had"] for parse in learned.parsed(name)] == [[]] * ROUNDS


def test_a_failure_in_the_child_keeps_it_from_the_parent(learned: Run) -> None:
    assert learned.in_parent("ff_fails") == []
    assert learned.report["refused"]["ff_fails"] == "failed in a child: ValueError"
    assert len(learned.parsed("fails")) == ROUNDS


@pytest.mark.parametrize(
    "module", ["ff_local", "sub.ff_deep", "ff_plugin", "ff_editable", "ff_config", "ff_zip_lib"]
)
def test_local_modules_stay_in_the_children(learned: Run, module: str) -> None:
    executed = [note for note in learned.imports if note["module"] == module]
    assert [note["in"] for note in executed] == ["child"] * ROUNDS
    assert module not in learned.report["preloaded"]
    assert module in learned.report["refused"]


@pytest.mark.parametrize(
    ("name", "module", "value"),
    [("shadow", "ff_shadowed", "local"), ("zipped", "ff_zip_shadowed", "zipped")],
)
def test_a_local_module_named_like_an_installed_one(learned: Run, name: str, module: str, value: str) -> None:
    """Whoever puts it first on sys.path gets it, in every round; the others get the installed one."""
    assert [parse["got"][module] for parse in learned.parsed(name)] == [value] * ROUNDS
    assert [parse["got"][module] for parse in learned.parsed("good_2")] == ["installed"] * ROUNDS


def test_children_do_not_share_random_numbers(learned: Run) -> None:
    """numpy seeds itself when it is imported; Python's own random does so in every child."""
    said = [note["what"] for name in ("random_1", "random_2") for note in learned.parsed(f"{name} said")]
    assert len(set(said)) == len(said) == 2 * ROUNDS


def test_a_module_that_starts_a_thread_still_has_it_in_the_child(learned: Run) -> None:
    said = [note["what"] for name in ("thread_1", "thread_2") for note in learned.parsed(f"{name} said")]
    assert said == ["answer"] * 2 * ROUNDS


def test_approved(modes: tuple[Run, Run]) -> None:
    """Only what is listed, once a child has imported it; deny wins."""
    run, _ = modes
    assert run.report["preloaded"] == ["ff_pack"]
    assert run.in_parent() == ["ff_pack"]
    assert run.report["refused"]["ff_good"] == "not approved by configuration"
    assert run.report["refused"]["ff_pack.part"] == "denied by configuration"
    assert len(run.parsed("good_1")) == ROUNDS


def test_off(modes: tuple[Run, Run]) -> None:
    _, run = modes
    assert run.report["preloaded"] == []
    assert run.report["refused"]["ff_good"] == "preload is off"
    assert run.in_parent() == []
    assert [parse["had"] for parse in run.parsed("good_1")] == [[]] * ROUNDS
