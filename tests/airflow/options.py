# SPDX-License-Identifier: Apache-2.0
"""A home with a distribution of its own, whose modules three DAG files import and say so."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.airflow.processor import (
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
    from collections.abc import Sequence
    from typing import TextIO

SECONDS = 60  # for a change to be seen
MODULES = {
    "ff_shared.py": "VALUE = 'old'\n",
    "ff_single.py": "VALUE = 'old'\n",
    # It would give all children the value of the day on which it was imported.
    "ff_asks.py": "from airflow.sdk import Variable\nVALUE = Variable.get('x', default='none')\n",
    "ff_session.py": "from airflow.settings import Session\n",
}
TELL = (
    "import os",
    "with open(os.environ['EVENTS'], 'a') as out: out.write(f'{NAME} {ff_shared.VALUE} {born}\\n')",
)


def file(name: str, *modules: str) -> str:
    born = "born = 'with' if 'ff_shared' in sys.modules else 'without'"
    return dag(
        name, "import sys", born, *(f"import {module}" for module in modules), f"NAME = {name!r}", *TELL
    )


DAGS = {
    "one.py": file("one", "ff_shared", "ff_single"),
    "two.py": file("two", "ff_shared", "ff_asks", "ff_session"),
    "three.py": file("three", "ff_shared", "ff_asks", "ff_session"),
}


class Place:
    """A home, a site prefix and a folder of one test."""

    def __init__(self, migrated: Path, path: Path) -> None:
        self.path = path
        self.home = Home.make(migrated, path / "home")
        self.install("1.0", "old")
        write(path / "dags", DAGS)
        self.events = Events(path / "events")

    def install(self, version: str, value: str) -> None:
        """As pip does: the files, then the metadata of the new version in the place of the old."""
        files = {name: text.replace("'old'", repr(value)) for name, text in MODULES.items()}
        site = next(iter(self.path.glob("site/lib/*/site-packages")), None)
        for old in site.glob("ff_options-*.dist-info") if site is not None else ():
            shutil.rmtree(old)
        install(self.path / "site", "ff_options", files, version=version)

    def environment(self, **settings: str) -> dict[str, str]:
        return self.home.environment(
            self.path / "dags",
            EVENTS=str(self.events.path),
            frostfork__min_children="1",
            **site_environment(self.path / "site"),
            **settings,
        )

    def run(self, rounds: int, **settings: str) -> str:
        """So many rounds; returns what the processor printed."""
        with Processor((*REPORTING, "--num-runs", str(rounds)), self.environment(**settings)) as processor:
            status = processor.wait()
            output = processor.out + processor.err
        assert status == 0, output[-4000:]
        return output

    def explain(
        self, *arguments: str, stdout: TextIO | int = subprocess.PIPE, **settings: str
    ) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).parent / "frostfork"), "airflow", "explain", *arguments]
        return subprocess.run(
            command,
            env=self.environment(**settings),
            cwd=self.path,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            timeout=100,
            check=False,
        )

    def await_output(self, processor: Processor, wanted: str) -> str:
        """Look with each line that comes, for want of a better clock, until the processor has printed this."""
        for _ in self.events.lines(SECONDS):
            if wanted in processor.out + processor.err:
                return processor.out + processor.err
        raise AssertionError(f"no {wanted!r} in {SECONDS} s: {processor.out[-3000:]}")

    def await_line(self, wanted: Sequence[str]) -> str:
        """The first line that is one of these. AssertionError if none comes."""
        seen = []
        for line in self.events.lines(SECONDS):
            seen.append(line)
            if line in wanted:
                return line
        raise AssertionError(f"none of {wanted} in {SECONDS} s, but {seen[-20:]}")
