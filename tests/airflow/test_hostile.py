# SPDX-License-Identifier: Apache-2.0
"""A folder of which a fifth of the files, or what they import, is hostile: the DAG processor goes on, unchanged.

FROSTFORK_HOSTILE_ROUNDS says how often each file is parsed. The suite takes a few rounds; fifty take some minutes.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.airflow.processor import Home, Processor, dag, install, site_environment, write

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(3000)]
pytest.importorskip("airflow")

ROUNDS = int(os.environ.get("FROSTFORK_HOSTILE_ROUNDS", "5"))
GOOD = 36
TIMEOUT = 8  # seconds for a file

# Where a module is imported: Airflow's manager, its zygote and whatever they fork for themselves are "server", the
# children "client".
IN_CHILD = 'import os\nin_child = os.environ.get("_AIRFLOW_PROCESS_CONTEXT") == "client"\n'
MODULES = {
    "hostile_exit": "import sys\nsys.exit(3)\n",
    # Good in a child, so that they are learned, and hostile where the parent or its canary imports them.
    "hostile_abort": IN_CHILD + "in_child or os.abort()\n",
    "hostile_crash": IN_CHILD + "import ctypes\nin_child or ctypes.string_at(0)\n",
    "hostile_leave": IN_CHILD + "in_child or os._exit(0)\n",
    "hostile_hang": IN_CHILD + "while not in_child: pass\n",
    "hostile_memory": IN_CHILD + 'MEMORY = None if in_child else b"x" * (2 << 30)\n',
    "hostile_print": IN_CHILD
    + 'line = "x" * (1 << 20)\nfor _ in range(1 if in_child else 1 << 10): print(line, flush=True)\n',
    # Hostile wherever they are, and a child that imports them takes no harm.
    "hostile_fork": "import os, time\nif os.fork() == 0:\n    time.sleep(1)\n    os._exit(0)\n",
    "hostile_thread": "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n",
    "hostile_signal": "from signal import SIG_IGN, SIGUSR1, signal\nsignal(SIGUSR1, SIG_IGN)\n",
    "hostile_environment": "import os\nos.environ['TZ'] = 'Mars/Olympus'\nos.environ['HOSTILE'] = '1'\n",
    "hostile_file": "FILE = open(__file__)\n",
    "hostile_folder": "import os, sys\nos.chdir('/')\nos.umask(0)\nsys.path.insert(0, '/nowhere')\n",
}
LEARNED = MODULES.keys() - {"hostile_exit"}
# The DAG files that are hostile themselves.
FILES = {
    "abort.py": "import os\nos.abort()\n",
    "crash.py": "import ctypes\nctypes.string_at(0)\n",
    # Once is enough: each time takes the limit.
    "hang.py": "import os\nif not os.path.exists(os.environ['LOG'] + '.hung'):\n"
    "    open(os.environ['LOG'] + '.hung', 'w').close()\n    while True: pass\n",
}

# What the manager's process and its zygote are, when it forks for the first time and at its end.
_LOOKING = """
import json, os, signal, sys, time
from pathlib import Path
from frostfork.airflow.command import run_dag_processor
from frostfork.airflow.manager import SharedParentManager
from frostfork.airflow.parsing_template import ParsingTemplate
from frostfork.airflow.zygote_parent import ZygoteParent

def state():
    handlers = {}
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        handlers[int(number)] = getattr(handler, "__qualname__", repr(handler))
    files = sorted(os.readlink(f"/proc/self/fd/{fd}").partition(":[")[0] for fd in os.listdir("/proc/self/fd")
                   if os.path.islink(f"/proc/self/fd/{fd}"))
    mask = os.umask(0o22)
    os.umask(mask)
    threads = sorted(Path(f"/proc/self/task/{thread}/comm").read_text() for thread in os.listdir("/proc/self/task"))
    return {"threads": threads, "files": files, "handlers": handlers, "environment": dict(os.environ),
            "folder": os.getcwd(), "umask": mask, "path": list(sys.path)}

class LookingTemplate(ParsingTemplate):
    def state(self):
        return state()

ZygoteParent.template = LookingTemplate

class Looking(SharedParentManager):
    first = done_at = None

    def parents(self):
        found = {"manager": state()}
        if self.zygote_parent is not None:
            found["zygote"] = self.zygote_parent.zygote.call("state")
        return found

    def max_runs_reached(self):
        # A zygote takes verdicts while nobody parses: go on until it has them all, or a minute has passed.
        if not super().max_runs_reached() or self.zygote_parent is None:
            return super().max_runs_reached()
        if self.done_at is None:
            type(self).done_at = time.monotonic()
        wanted = set(json.loads(os.environ["LEARNED"]))
        return wanted <= set(self.report().refused) or time.monotonic() > self.done_at + 60

    def _start_new_processes(self):
        if self.first is None:
            type(self).first = self.parents()
        super()._start_new_processes()

    def after_run(self):
        super().after_run()
        report = self.report()
        facts = {"first": self.first, "last": self.parents(), "preloaded": list(report.preloaded)}
        facts.update(refused=report.refused, generation=self.zygote_parent and self.zygote_parent.zygote.generation)
        Path(os.environ["REPORT"]).write_text(json.dumps(facts))

run_dag_processor(sys.argv[1:], Looking)
"""


def good(number: int) -> str:
    lines = ["import os, ff_shared", "with open(os.environ['LOG'], 'a') as log:"]
    lines.append(f"    log.write('good_{number}\\n')")
    return dag(f"good_{number}", *lines)


@pytest.fixture(scope="module", params=["zygote", "no zygote"])
def run(
    request: pytest.FixtureRequest, migrated_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Home, dict[str, Any], list[str], str]:
    """The home after the run, what the manager said of itself, a line for each good parse, and the output."""
    folder = tmp_path_factory.mktemp("hostile")
    site = site_environment(folder / "site")
    install(folder / "site", "shared", {"ff_shared.py": "VALUE = 1\n"})
    install(folder / "site", "hostile", {f"{name}.py": text for name, text in MODULES.items()})
    files = {f"good_{number}.py": good(number) for number in range(GOOD)}
    files |= {f"uses_{name}.py": dag(f"uses_{name}", f"import {name}") for name in MODULES}
    files |= {name: text + "# DAG airflow\n" for name, text in FILES.items()}
    write(folder / "dags", files)
    home = Home.make(migrated_home, folder / "home")
    environment = home.environment(
        folder / "dags",
        LOG=str(folder / "log"),
        LEARNED=json.dumps(sorted(LEARNED)),
        frostfork__zygote=str(request.param == "zygote"),
        frostfork__canary_seconds="3",
        frostfork__canary_megabytes="512",
        dag_processor__dag_file_processor_timeout=str(TIMEOUT),
        dag_processor__parsing_processes="3",
        **site,
    )
    with Processor((sys.executable, "-c", _LOOKING, "--num-runs", str(ROUNDS)), environment) as processor:
        status = processor.wait(120 + 30 * ROUNDS)
        output = processor.out + processor.err
    assert status == 0, output[-3000:]
    return home, home.report(), (folder / "log").read_text().split(), output


Run = tuple[Home, dict[str, Any], list[str], str]


def test_every_good_file_is_parsed_in_every_round(run: Run) -> None:
    home, _, parses, _ = run
    counts = {f"good_{number}": parses.count(f"good_{number}") for number in range(GOOD)}
    assert min(counts.values()) >= ROUNDS, counts
    known = {row["dag_id"] for row in home.rows("SELECT dag_id FROM dag WHERE is_stale = 0")}
    assert set(counts) <= known
    errors = {Path(row["filename"]).name for row in home.rows("SELECT filename FROM import_error")}
    assert not {name for name in errors if name.startswith("good_")}


def test_nothing_hostile_is_imported_in_the_parent(run: Run) -> None:
    _, report, _, output = run
    assert "ff_shared" in report["preloaded"]
    assert not {name for name in report["preloaded"] if name.startswith("hostile_")}, report["refused"]
    assert set(report["refused"]) >= LEARNED, json.dumps(report["refused"], indent=1) + output[-3000:]


@pytest.mark.parametrize("what", ["threads", "files", "handlers", "environment", "folder", "umask", "path"])
def test_the_parent_ends_as_it_began(run: Run, what: str) -> None:
    _, report, _, _ = run
    assert {parent: found[what] for parent, found in report["last"].items()} == {
        parent: found[what] for parent, found in report["first"].items()
    }


def test_the_zygote_is_the_first_one(run: Run) -> None:
    """Nothing that was imported or parsed has ended it."""
    _, report, _, _ = run
    assert report["generation"] == (1 if "zygote" in report["first"] else None)


def test_no_process_is_left(run: Run) -> None:
    home, _, _, _ = run
    left = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("AIRFLOW_HOME") == str(home.path):
                left.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    _, alive = psutil.wait_procs(left, timeout=10)  # what a DAG file itself forked sleeps for a second
    assert not alive
