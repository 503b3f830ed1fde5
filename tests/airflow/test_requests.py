# SPDX-License-Identifier: Apache-2.0
"""Who asks for a file while a child parses it, or while the processor is about to begin anew, is not forgotten."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.airflow.processor import VARIANTS, Events, Home, Processor, dag, write

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(300)]
pytest.importorskip("airflow")

SECONDS = 60

# Says that its parse began, and goes on when it may.
GATED = dag(
    "asked",
    "import os, time",
    "with open(os.environ['EVENTS'], 'a') as out: out.write('parsed\\n')",
    "while not os.path.exists(os.environ['GATE']): time.sleep(0.01)",
)
ASK = """
from airflow.models.dagbag import DagPriorityParsingRequest
from airflow.utils.session import create_session
with create_session() as session:
    session.add(DagPriorityParsingRequest(bundle_name="dags-folder", relative_fileloc="asked.py"))
"""


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_file_that_is_asked_for_while_it_is_parsed_is_parsed_again(
    migrated_home: Path, tmp_path: Path, variant: str
) -> None:
    home = Home.make(migrated_home, tmp_path / "home")
    dags, gate = tmp_path / "dags", tmp_path / "gate"
    write(dags, {"asked.py": GATED})
    command, settings = VARIANTS[variant]
    with Events(tmp_path / "events") as events:
        environment = home.environment(
            dags,
            EVENTS=str(events.path),
            GATE=str(gate),
            dag_processor__parsing_processes="1",
            dag_processor__min_file_process_interval="3600",
            **settings,
        )
        with Processor(command, environment) as processor:
            events.expect("parsed", SECONDS)
            subprocess.run([sys.executable, "-c", ASK], env=environment, check=True, timeout=60)
            end = time.monotonic() + SECONDS
            while home.rows("SELECT * FROM dag_priority_parsing_request"):
                assert time.monotonic() < end, processor.out[-3000:]
                time.sleep(0.05)
            gate.touch()
            events.expect("parsed", SECONDS)
            processor.signal(signal.SIGTERM)
            assert processor.wait(60) == os.EX_OK, processor.out[-3000:] + processor.err
