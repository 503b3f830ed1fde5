# SPDX-License-Identifier: Apache-2.0
"""The DAG processor's zygote: what happens when it, or the manager, or a child ends in a way that nobody wished for.

That a zygote's children find and do what Airflow's own do is in test_same_behaviour, test_hostile and others.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.airflow.processor import COMMANDS, VARIANTS, Events, Home, Processor, dag, run_together, write

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(300)]
pytest.importorskip("airflow")

SECONDS = 60
ALIKE = "frostfork forks the parsing processes from the manager itself"

# Says who parses: itself, its parent, and who its parent's parent is.
SAYS = (
    "import os",
    "parents = f'{os.getpid()} {os.getppid()}'",
    "with open(os.environ['EVENTS'], 'a') as out: out.write(f'{NAME} {parents}\\n')",
)


def saying(name: str, *after: str) -> str:
    return dag(name, f"NAME = {name!r}", *SAYS, *after)


@dataclass(frozen=True)
class Said:
    """What a parse said of itself."""

    name: str
    pid: int
    parent: int


@dataclass
class Place:
    home: Home
    dags: Path
    events: Events

    def environment(self, **settings: str) -> dict[str, str]:
        return self.home.environment(self.dags, EVENTS=str(self.events.path), **settings)

    def next_parse(self, *names: str) -> Said:
        """The next parse of one of these files, or of any."""
        for line in self.events.lines(SECONDS):
            name, pid, parent = line.split()
            if not names or name in names:
                return Said(name, int(pid), int(parent))
        raise AssertionError(f"no parse of {names} in {SECONDS} s")

    def parents(self, count: int) -> set[int]:
        """Of the next parses, so many."""
        return {self.next_parse().parent for _ in range(count)}


@pytest.fixture
def place(migrated_home: Path, tmp_path: Path) -> Iterator[Place]:
    home = Home.make(migrated_home, tmp_path / "home")
    with Events(tmp_path / "events") as events:
        yield Place(home, tmp_path / "dags", events)


def is_zygote_of(parent: int, manager: int) -> bool:
    """Whether it is a grandchild of the manager: there is a root between."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(parent).ppid() in {child.pid for child in psutil.Process(manager).children()}
    return False


HANGS = ("import time", "time.sleep(600)")


def test_a_killed_manager_leaves_no_process(place: Place) -> None:
    write(place.dags, {"hangs.py": saying("hangs", *HANGS), "other.py": saying("other", *HANGS)})
    with Processor(COMMANDS["frostfork"], place.environment()) as processor:
        first, second = place.next_parse(), place.next_parse()
        assert first.parent == second.parent != processor.pid
        assert is_zygote_of(first.parent, processor.pid)
        family = {member.pid for member in processor.look()}
        assert {first.pid, second.pid, first.parent} < family
        processor.signal(signal.SIGKILL)
        assert processor.wait(30) == -signal.SIGKILL
        assert processor.left_over() == []


def test_a_killed_zygote_is_replaced(place: Place) -> None:
    """The parses under way go on to their results, and the next ones come from another zygote."""
    go_on = place.home.path / "go-on"
    os.mkfifo(go_on)
    waits = ("with open(os.environ['GO_ON']) as file: file.read()",)
    write(place.dags, {"one.py": saying("one"), "waits.py": saying("waits", *waits)})
    environment = place.environment(GO_ON=str(go_on))
    with Processor(COMMANDS["frostfork"], environment) as processor:
        waiting = place.next_parse("waits")
        os.kill(waiting.parent, signal.SIGKILL)
        later = place.next_parse("one")
        # Its child is the root's now, which is no zygote: a new one forked what is none of theirs.
        while later.parent == waiting.parent or not is_zygote_of(later.parent, processor.pid):
            later = place.next_parse("one")
        assert psutil.pid_exists(waiting.pid)
        os.close(os.open(go_on, os.O_RDWR))
        # It is over for the manager, which parses the file once more.
        assert place.next_parse("waits").pid != waiting.pid
        assert place.home.rows("SELECT dag_id FROM dag WHERE dag_id = 'waits'")
        processor.signal(signal.SIGTERM)
        assert processor.wait(60) == os.EX_OK
        assert processor.left_over() == []
    assert ALIKE not in processor.out + processor.err


def test_a_zygote_that_is_killed_while_it_is_asked(place: Place) -> None:
    """Whether it forked is not known. The file is parsed all the same, from another zygote."""
    write(place.dags, {"one.py": saying("one")})
    with Processor(COMMANDS["frostfork"], place.environment()) as processor:
        killed = place.next_parse().parent
        for _ in range(3):
            os.kill(killed, signal.SIGSTOP)
            time.sleep(0.5)  # far longer than it takes until the next question
            os.kill(killed, signal.SIGKILL)
            later = place.next_parse()
            while later.parent == killed or not is_zygote_of(later.parent, processor.pid):
                later = place.next_parse()
            killed = later.parent
        processor.signal(signal.SIGTERM)
        assert processor.wait(60) == os.EX_OK
        assert processor.left_over() == []
    assert ALIKE not in processor.out + processor.err


# Ours, with something broken before it starts: names of Airflow's among it, but none that its own fork needs.
BROKEN = """
import sys
from frostfork.airflow.command import run_dag_processor
from frostfork.airflow.manager import SharedParentManager
{0}
run_dag_processor(sys.argv[1:], SharedParentManager)
"""
FAILING = """
ask, left = Zygote.ask, [1, 2, 3]
def failing(self, *arguments, **options):
    if left:
        left.pop()
        return ask(self, *arguments, **options)
    raise ZygoteError("they end, all of them")
Zygote.ask = failing
"""
LOSING = """
def losing(self, timeout=None):
    self.abandon()
    raise ZygoteError("they end when they are asked")
Coming.worker = losing
"""
BREAKS = {
    "no such method": ("del supervisor.ProcessTracker.wait", "it has no supervisor.ProcessTracker.wait"),
    "other arguments": (
        "supervisor.ProcessTracker.wait = lambda self: 0",
        "its supervisor.ProcessTracker.wait takes other arguments",
    ),
    "a template that fails": (
        "ParsingTemplate.begin = lambda self: 1 / 0",
        "ZeroDivisionError: division by zero",
    ),
    "nothing after the third fork": (
        FAILING,
        "from now on: they end, all of them",
    ),
    "nothing that was asked for": (
        LOSING,
        "from now on: they end when they are asked",
    ),
}
IMPORTS = (
    "from airflow.sdk.execution_time import supervisor\n"
    "from frostfork.airflow.parsing_template import ParsingTemplate\n"
    "from frostfork.errors import ZygoteError\n"
    "from frostfork.zygote import Coming, Zygote\n"
)


@pytest.mark.parametrize("what", BREAKS)
def test_without_a_zygote_the_manager_forks(place: Place, what: str) -> None:
    """One line says why; all files are parsed, and the manager learns."""
    breaks, reason = BREAKS[what]
    write(place.dags, {f"file_{n}.py": saying(f"file_{n}", "import sqlite3.dump") for n in range(4)})
    command = (sys.executable, "-c", BROKEN.format(IMPORTS + breaks), "--num-runs", "3")
    with Processor(command, place.environment()) as processor:
        assert processor.wait() == os.EX_OK, processor.err
    said = processor.out + processor.err
    assert said.count(ALIKE) == 1, said
    line = next(line for line in said.splitlines() if ALIKE in line)
    assert reason in line
    parents = [int(line.split()[2]) for line in place.events.lines(0.5)]
    assert len(parents) >= 12
    own = [parent for parent in parents if parent == processor.pid]
    if what.startswith("nothing"):
        assert own == parents[-len(own) :]
        assert len(own) >= 9
    else:
        assert own == parents
    assert {row["dag_id"] for row in place.home.rows("SELECT dag_id FROM dag")} == {
        f"file_{n}" for n in range(4)
    }
    assert "frostfork warmed up" in said


KILLING = """
import os, signal
ask, asked = Zygote.ask, []
def killing(self, *arguments, **options):
    asked.append(len(asked))
    if len(asked) % 5:
        return ask(self, *arguments, **options)
    zygote = self.pid
    os.kill(zygote, signal.SIGSTOP)
    coming = ask(self, *arguments, **options)
    os.kill(zygote, signal.SIGKILL)
    while self.alive:
        pass
    return coming
Zygote.ask = killing
"""


def test_a_zygote_that_ends_before_it_forks(place: Place) -> None:
    """Whoever is told what to parse is not there; another zygote's child parses it."""
    write(place.dags, {f"file_{n}.py": saying(f"file_{n}") for n in range(4)})
    command = (sys.executable, "-c", BROKEN.format(IMPORTS + KILLING), "--num-runs", "5")
    with Processor(command, place.environment()) as processor:
        assert processor.wait() == os.EX_OK, processor.err
        assert processor.left_over() == []
    assert ALIKE not in processor.out + processor.err
    names = [line.split()[0] for line in place.events.lines(0.5)]
    assert all(names.count(f"file_{n}") == 5 for n in range(4))


IMPATIENT = (
    "from frostfork.airflow import zygote_parent\n"
    "zygote_parent.FORK_SECONDS = zygote_parent.ANSWER_SECONDS = 3.0"
)


def test_a_zygote_that_hangs(place: Place) -> None:
    """The manager does not wait for it for ever, and takes it along at the end."""
    write(place.dags, {"one.py": saying("one")})
    command = (sys.executable, "-c", BROKEN.format(IMPATIENT))
    # The end of a child that it does not wait for is known when Airflow's time limit is over.
    environment = place.environment(dag_processor__dag_file_processor_timeout="8")
    with Processor(command, environment) as processor:
        zygote = place.next_parse().parent
        os.kill(zygote, signal.SIGSTOP)
        while place.next_parse().parent != processor.pid:
            pass
        processor.signal(signal.SIGTERM)
        assert processor.wait(60) == os.EX_OK
        assert processor.left_over() == []
        assert not psutil.pid_exists(zygote)
    assert (processor.out + processor.err).count(f"{ALIKE} from now on") == 1


@pytest.mark.parametrize("when", ["at the end", "before a new file"])
def test_a_zygote_that_does_not_answer(place: Place, when: str) -> None:
    """It is asked for its report at the end, and told of a file before that is parsed for the first time."""
    write(place.dags, {"one.py": saying("one")})
    command = (sys.executable, "-c", BROKEN.format(IMPATIENT))
    rarely = place.environment(
        dag_processor__min_file_process_interval="600", dag_processor__refresh_interval="1"
    )
    with Processor(command, rarely) as processor:
        zygote = place.next_parse().parent
        os.kill(zygote, signal.SIGSTOP)
        if when == "before a new file":
            write(place.dags, {"two.py": saying("two")})
            assert place.next_parse("two").parent == processor.pid
        processor.signal(signal.SIGTERM)
        assert processor.wait(60) == os.EX_OK
        assert processor.left_over() == []
        assert not psutil.pid_exists(zygote)
    said = processor.out + processor.err
    if when == "before a new file":
        assert f"{ALIKE} from now on: the zygote ({zygote}) did not answer tell() within 3 s" in said
    else:
        assert f"the zygote ({zygote}) did not answer report() within 3 s" in said


def test_a_zygote_that_is_killed_while_it_is_told_of_a_file_is_replaced(place: Place) -> None:
    write(place.dags, {"one.py": saying("one")})
    environment = place.environment(
        dag_processor__min_file_process_interval="600",
        dag_processor__refresh_interval="1",
        dag_processor__bundle_refresh_check_interval="1",
    )
    with Processor(COMMANDS["frostfork"], environment) as processor:
        zygote = place.next_parse().parent
        os.kill(zygote, signal.SIGSTOP)
        write(place.dags, {"two.py": saying("two")})
        time.sleep(4)  # the manager finds the file within two, and then waits for the zygote
        os.kill(zygote, signal.SIGKILL)
        parent = place.next_parse("two").parent
        assert parent != zygote and is_zygote_of(parent, processor.pid)
        processor.signal(signal.SIGTERM)
        assert processor.wait(60) == os.EX_OK, processor.err
    assert ALIKE not in processor.out + processor.err


def test_the_time_for_which_a_fork_waits_is_not_the_files(place: Place) -> None:
    write(place.dags, {"one.py": saying("one")})
    environment = place.environment(
        dag_processor__min_file_process_interval="600", dag_processor__refresh_interval="1"
    )

    def stored() -> list[tuple[str, float]]:
        rows = place.home.rows("SELECT last_parsed_time, last_parse_duration FROM dag")
        return [(row["last_parsed_time"], row["last_parse_duration"]) for row in rows]

    def store_another_than(before: list[tuple[str, float]]) -> list[tuple[str, float]]:
        end = time.monotonic() + SECONDS
        while (now := stored()) == before:
            assert time.monotonic() < end, processor.out
            time.sleep(0.01)
        return now

    with Processor(COMMANDS["frostfork"], environment) as processor:
        zygote = place.next_parse().parent
        before = store_another_than([])
        os.kill(zygote, signal.SIGSTOP)
        write(place.dags, {"one.py": saying("one", "# edited")})
        time.sleep(4)  # the edit is seen within one, and then the zygote is asked for a fork
        os.kill(zygote, signal.SIGCONT)
        ((_, seconds),) = store_another_than(before)
        assert seconds < 2


THREAD = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"


def test_a_manager_with_threads(place: Place) -> None:
    """Its zygote is a new interpreter: no thread's lock is in it."""
    write(place.home.path / "config", {"airflow_local_settings.py": THREAD})
    write(place.dags, {"one.py": saying("one"), "two.py": saying("two")})
    with Processor((*COMMANDS["frostfork"], "--num-runs", "2"), place.environment()) as processor:
        first = place.next_parse()
        assert is_zygote_of(first.parent, processor.pid)
        assert processor.wait() == os.EX_OK, processor.err
        said = processor.out + processor.err
    assert ALIKE not in said
    assert len(place.home.rows("SELECT * FROM dag")) == 2
    assert "frostfork warmed up" in said


ENDS = {
    "fine": "pass",
    "code": "os._exit(3)",
    "exits": "sys.exit(4)",
    "killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "segfault": "signal.signal(signal.SIGSEGV, signal.SIG_DFL); os.kill(os.getpid(), signal.SIGSEGV)",
    "raises": "raise ValueError('of this file')",
    "base": "class Odd(BaseException): pass\nraise Odd('of this file')",
    "prints": "print('to stdout'); print('to stderr', file=sys.stderr)",
    "logs": "import logging; logging.getLogger('dag').warning('a line')",
    "at_exit": "import atexit; atexit.register(print, 'at the exit')",
    "interrupts": "signal.raise_signal(signal.SIGINT)",
    "hangs": "time.sleep(600)",
}
_CHANGING = ("timestamp", "process_id", "filename", "lineno", "module", "func_name")


def lines_of(home: Home, name: str) -> list[str]:
    """The log of one file, without what differs from run to run: their order, too, for they come in several ways."""
    found = []
    for path in (home.path / "logs").rglob(f"{name}.py.log"):
        if "latest" in path.parts:
            continue
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            kept = {key: value for key, value in entry.items() if key not in _CHANGING}
            found.append(json.dumps(kept, sort_keys=True))
    return sorted(found)


@pytest.fixture(scope="module")
def ended(migrated_home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Home]:
    """Homes of stock and of ours after one round over files that end in all manners."""
    scratch = tmp_path_factory.mktemp("ends")
    lines = ("import os, signal, sys, time",)
    write(scratch / "dags", {f"{name}.py": dag(name, *lines, how) for name, how in ENDS.items()})
    runs, homes = {}, {}
    for name in ("stock", "frostfork"):
        command, settings = VARIANTS[name]
        homes[name] = Home.make(migrated_home, scratch / name)
        environment = homes[name].environment(
            scratch / "dags", dag_processor__dag_file_processor_timeout="10", **settings
        )
        runs[name] = ((*command, "--num-runs", "1"), environment)
    for name, processor in run_together(runs).items():
        assert processor.wait() == 0, f"{name}: {processor.out[-3000:]}"
    return homes


@pytest.mark.parametrize("name", ENDS)
def test_a_childs_end_is_told_as_airflow_tells_it(ended: dict[str, Home], name: str) -> None:
    """Exit codes, signals by their names, last lines: the file's log is stock Airflow's."""
    stock, ours = lines_of(ended["stock"], name), lines_of(ended["frostfork"], name)
    assert ours == stock
    if name in ("code", "killed", "segfault"):
        assert stock


CACHED = (
    "from airflow.sdk.execution_time.cache import SecretCache",
    "had = sorted(SecretCache._cache.keys()) if SecretCache._cache is not None else None",
    "SecretCache.save_variable(NAME, 'value')",
    "with open(os.environ['CACHE'], 'a') as out: out.write(f'{NAME} {had}\\n')",
)


def test_children_share_the_cache_of_variables(place: Place) -> None:
    """[secrets] use_cache: what one child put there is there for the others."""
    cache = place.home.path / "cache"
    write(place.dags, {f"{name}.py": saying(name, *CACHED) for name in ("one", "two", "three")})
    environment = place.environment(CACHE=str(cache), secrets__use_cache="True")
    with Processor((*COMMANDS["frostfork"], "--num-runs", "3"), environment) as processor:
        assert processor.wait() == os.EX_OK, processor.err
    said = cache.read_text().splitlines()
    assert not any("None" in line for line in said), said
    assert said[-1].partition(" ")[2] == str(["__v_one", "__v_three", "__v_two"])


def test_a_file_that_is_deleted_while_it_is_parsed(place: Place) -> None:
    write(place.dags, {"hangs.py": saying("hangs", *HANGS), "other.py": saying("other")})
    environment = place.environment(
        dag_processor__refresh_interval="1", dag_processor__bundle_refresh_check_interval="1"
    )
    with Processor(COMMANDS["frostfork"], environment) as processor:
        hanging = place.next_parse("hangs")
        process = psutil.Process(hanging.pid)
        (place.dags / "hangs.py").unlink()
        with contextlib.suppress(psutil.NoSuchProcess):
            process.wait(SECONDS)
        assert not process.is_running()
        for _ in range(3):
            assert place.next_parse().name == "other"
        processor.signal(signal.SIGTERM)
        assert processor.wait(60) == os.EX_OK
        assert processor.left_over() == []


def test_the_manager_imports_nothing_for_its_children(place: Place) -> None:
    """It stays as it is: what children use is in the zygote alone."""
    write(place.dags, {f"file_{n}.py": saying(f"file_{n}", "import numpy") for n in range(3)})
    with Processor(COMMANDS["frostfork"], place.environment(frostfork__canary="False")) as processor:
        for _ in range(9):
            parse = place.next_parse()
        zygote = parse.parent

        def has_numpy(pid: int) -> bool:
            return any("/numpy/" in mapping.path for mapping in psutil.Process(pid).memory_maps())

        assert has_numpy(zygote)
        assert not has_numpy(processor.pid)
