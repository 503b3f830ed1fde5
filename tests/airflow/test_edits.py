# SPDX-License-Identifier: Apache-2.0
"""Edits of a folder while frostfork's DAG processor runs over it: each is seen in the next round.

DAG files say through a pipe what they saw, so that nothing here waits for time to pass. One processor serves all tests,
and one that has no zygote: a fixture makes the edits and records what followed, the tests judge it.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.airflow.processor import (
    COMMANDS,
    REPORTING,
    Events,
    Home,
    Processor,
    dag,
    install,
    site_environment,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(600)]
pytest.importorskip("airflow")

SECONDS = 40  # for a change to be seen; it takes one or two


def saying(name: str, *lines: str, value: str) -> str:
    """A DAG file that tells its name and the value of an expression each time that it is parsed."""
    return dag(
        name,
        "import os, sys",
        *lines,
        f"with open(os.environ['EVENTS'], 'a') as out: out.write(f'{name} {{{value}}}\\n')",
    )


FIRST = "sys.path.insert(0, os.path.dirname(__file__))"
# The installed modules say what they are; the DAG file says too whether its process was born with them.
LATE = ("late = 'ff_late' in sys.modules", FIRST, "import ff_late")
DAGS = {
    "plain.py": saying("plain", value="'first'"),
    "helped.py": saying("helped", "import ff_helper", value="ff_helper.VALUE"),
    "ff_helper.py": "VALUE = 'first'\n",
    "late/late.py": saying("late", *LATE, value="ff_late.VALUE + (' inherited' if late else ' imported')"),
    "late/other.py": saying("other", "import ff_stays", value="ff_stays.VALUE"),
    ".airflowignore": "ff_*\n",
}


@dataclass
class Session:
    """What came of each step: whether the lines that it waited for were said."""

    home: Home
    events: Events
    said: dict[str, bool] = field(default_factory=dict)

    def await_line(self, step: str, *lines: str) -> None:
        missing = set(lines)
        for line in self.events.lines(SECONDS):
            missing.discard(line)
            if not missing:
                break
        self.said[step] = not missing

    def await_row(self, step: str, query: str) -> None:
        """With each line that comes, for want of a better clock, look whether the query finds something."""
        self.said[step] = any(bool(self.home.rows(query)) for _ in self.events.lines(SECONDS))


@pytest.fixture(scope="module", params=["True", "False"], ids=["zygote", "no zygote"])
def edited(
    request: pytest.FixtureRequest, migrated_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bool]:
    scratch = tmp_path_factory.mktemp("edits")
    dags, prefix = scratch / "dags", scratch / "prefix"
    write(dags, DAGS)
    install(prefix, "ff_test", dict.fromkeys(("ff_late.py", "ff_stays.py"), "VALUE = 'installed'\n"))
    home = Home.make(migrated_home, scratch / "home")
    with Events(home.path / "events") as events:
        environment = home.environment(
            dags,
            EVENTS=str(events.path),
            frostfork__zygote=request.param,
            dag_processor__refresh_interval="1",
            dag_processor__bundle_refresh_check_interval="1",
            **site_environment(prefix),
        )
        session = Session(home, events)
        with Processor(COMMANDS["frostfork"], environment) as processor:
            _edit(session, dags)
            processor.look()
    print(session.said)
    return session.said


def _edit(session: Session, dags: Path) -> None:
    session.await_line("start", "plain first", "helped first", "late installed inherited")
    # Texts of another length: Python takes a cached module of the same second and size for the same.
    write(dags, {"plain.py": saying("plain", value="'the second'")})
    session.await_line("DAG file", "plain the second")
    write(dags, {"ff_helper.py": "VALUE = 'the second'\n"})
    session.await_line("helper", "helped the second")
    write(dags, {"new.py": saying("new", value="'here'")})
    session.await_line("new file", "new here")
    session.await_row("new row", "SELECT * FROM dag WHERE dag_id = 'new' AND NOT is_stale")
    (dags / "new.py").unlink()
    session.await_row("deleted file", "SELECT * FROM dag WHERE dag_id = 'new' AND is_stale")
    write(dags, {"late/ff_late.py": "VALUE = 'local'\n"})
    session.await_line("shadow", "late local imported")
    write(dags, {"late/ff_late.py": "VALUE = 'local, edited'\n"})
    session.await_line("edited shadow", "late local, edited imported")
    (dags / "late/ff_late.py").unlink()
    session.await_line("shadow gone", "late installed imported")


@pytest.mark.parametrize("step", ["DAG file", "helper", "new file", "new row", "deleted file"])
def test_edit_is_seen(edited: dict[str, bool], step: str) -> None:
    assert edited["start"]
    assert edited[step]


@pytest.mark.parametrize("step", ["shadow", "edited shadow"])
def test_local_module_that_takes_the_name_of_a_preloaded_one(edited: dict[str, bool], step: str) -> None:
    """The parent has the installed module by then; the child must not inherit it in the place of the local one."""
    assert edited["start"]
    assert edited[step]


# In the parent alone, this import says that it has begun and goes on when it is told to.
BLOCKING = """
import os, select
if os.environ["_AIRFLOW_PROCESS_CONTEXT"] == "server":
    with open(os.environ["EVENTS"], "a") as out:
        out.write("blocked\\n")
    go_on = os.open(os.environ["GO_ON"], os.O_RDWR)
    assert select.select([go_on], [], [], 60)[0]
    with open(os.environ["EVENTS"], "a") as out:
        out.write("finished\\n")
"""


@pytest.fixture
def blocked(migrated_home: Path, tmp_path: Path) -> Iterator[tuple[Processor, Events, int]]:
    """A processor in the middle of an import in the parent, and the descriptor that lets it go on."""
    prefix, dags = tmp_path / "prefix", tmp_path / "dags"
    write(dags, {"blocks.py": dag("blocks", "import ff_blocks")})
    install(prefix, "ff_blocks", {"ff_blocks.py": BLOCKING})
    home = Home.make(migrated_home, tmp_path / "home")
    with Events(home.path / "events") as events, Events(home.path / "go-on") as go_on:
        environment = home.environment(
            dags, EVENTS=str(events.path), GO_ON=str(go_on.path), **site_environment(prefix)
        )
        with Processor(REPORTING, environment) as processor:
            events.expect("blocked", 90)
            with go_on.path.open("w") as pipe:
                yield processor, events, pipe.fileno()


def test_signal_in_an_import_waits_for_its_end(blocked: tuple[Processor, Events, int]) -> None:
    """It is not taken for the module's own failure, and the processor ends as Airflow does."""
    processor, events, go_on = blocked
    processor.signal(signal.SIGTERM)
    os.write(go_on, b"now")
    events.expect("finished")
    assert processor.wait(60) == 0
    assert processor.left_over() == []


def test_a_second_signal_does_not_wait(blocked: tuple[Processor, Events, int]) -> None:
    """For an import that never ends."""
    processor, _, _ = blocked
    processor.signal(signal.SIGTERM)
    # Two of a kind may become one before the first is handled: the state says when nothing is pending.
    status = Path(f"/proc/{processor.pid}/status")
    for _ in range(100_000):
        pending = [line for line in status.read_text().splitlines() if line.startswith(("SigPnd", "ShdPnd"))]
        if all(int(line.split()[1], 16) == 0 for line in pending):
            break
    processor.signal(signal.SIGTERM)
    processor.wait(60)
    assert processor.left_over() == []


# Python runs a signal's handler inside the at-fork hooks if it comes in during a fork, and drops what that raises.
SIGNAL_AT_FORK = """
import os, signal

def before():
    if os.environ.get("_AIRFLOW_PROCESS_CONTEXT") == "server":
        os.kill(os.getpid(), signal.SIGTERM)

os.register_at_fork(before=before)
"""


def test_signal_in_a_fork_is_not_lost(migrated_home: Path, tmp_path: Path) -> None:
    """Airflow's handler raises SystemExit. Stock goes on for ever when this happens; a busy processor forks a lot."""
    home = Home.make(migrated_home, tmp_path / "home")
    write(home.path / "config", {"airflow_local_settings.py": SIGNAL_AT_FORK})
    write(tmp_path / "dags", {"one.py": dag("one"), "two.py": dag("two")})
    # A zygote leaves signals to the manager, which this hook would not send any.
    environment = home.environment(tmp_path / "dags", frostfork__zygote="False")
    with Processor(COMMANDS["frostfork"], environment) as processor:
        assert processor.wait(60) == 0
        assert "Exiting gracefully" in processor.out
        assert processor.left_over() == []
