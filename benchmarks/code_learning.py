# SPDX-License-Identifier: Apache-2.0
"""What it costs a child to note which code it runs: CPU seconds of a parse that notes it, and of one that does not.

Airflow's own parser over one DAG file with pandas, in children of a warmed parent, in turn. Of a file's parses one in
fifty notes code (src/frostfork/airflow/learning.py), so the average over a file's life follows from the ratio.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from dags.generate import KINDS, generate
from pairs import BenchmarkError, Figure, figure, fresh, in_turn, medians, progress, ratios
from warmed_child import in_child

import frostfork

NAME = "code_learning"
GOAL = 1.03
_KIND = "pandas"


def missing() -> str:
    absent = [name for name in ("airflow", "pandas") if importlib.util.find_spec(name) is None]
    if not absent:
        return ""
    return f"{NAME}: left out, for {', '.join(absent)} cannot be imported here (locks/demo.txt pins what it needs)."


def run(*, quick: bool) -> list[Figure]:
    from frostfork.airflow.learning import CODE_EVERY

    pairs = 4 if quick else 60
    progress(f"{NAME}: {pairs} pairs of parses")
    measured = [tuple(pair) for pair in fresh(__file__, "--pairs", pairs)["cpu"]]
    once = ratios(measured)
    average = [1 + (ratio - 1) / CODE_EVERY for ratio in once]
    detail = medians(measured, ("without", "with"), 1e3, "ms")
    return [
        figure(NAME, "CPU seconds of a parse that notes code", once, GOAL, detail=detail),
        figure(NAME, f"average, one parse in {CODE_EVERY} notes code", average, GOAL),
    ]


def _parse(request: Any, journal: frostfork.Journal, code: bool) -> None:
    import structlog
    from airflow.dag_processing import processor

    with frostfork.observe(journal, pages=False, code=code):
        result = processor._parse_file(request, structlog.get_logger(logger_name="task"))
    if result is None or result.import_errors or not result.serialized_dags:
        raise BenchmarkError(f"the DAG file was not parsed: {result}")


def _in_child(request: Any, code: bool, ledger: frostfork.Ledger | None = None) -> float:
    """CPU seconds of a child that parses."""
    journal = frostfork.Journal()

    def parse() -> float:
        _parse(request, journal, code)
        return time.process_time()

    seconds: float = in_child(parse, freeze=True)
    if ledger is not None:
        ledger.record(frostfork.Observation.from_journal(journal))
    journal.close()
    return seconds


def _measured(pairs: int, scratch: Path) -> dict[str, Any]:
    os.environ |= {"AIRFLOW_HOME": str(scratch / "home"), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    corpus = scratch / "dags"
    file = next(each for each in generate(corpus, files=len(KINDS)) if each.kind == _KIND)
    os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = str(corpus)

    from airflow.dag_processing.processor import DagFileParseRequest

    request = DagFileParseRequest(
        file=str(corpus / file.path), bundle_path=corpus, bundle_name="corpus", callback_requests=[]
    )
    ledger = frostfork.Ledger()
    for code in (False, True):
        _in_child(request, code, ledger)
        frostfork.warmup(ledger)
    cpu = in_turn(lambda: _in_child(request, False), lambda: _in_child(request, True), pairs)
    return {"cpu": cpu, "functions": len(ledger.hot_code)}


def main() -> None:
    parser = argparse.ArgumentParser(description="One parent and its children; prints JSON.")
    parser.add_argument("--pairs", type=int, required=True)
    options = parser.parse_args()
    answer = os.dup(1)
    with open(os.devnull, "w") as nowhere:  # Airflow logs to standard output
        os.dup2(nowhere.fileno(), 1)
    with tempfile.TemporaryDirectory(prefix="frostfork-bench-") as scratch:
        found = _measured(options.pairs, Path(scratch))
    with os.fdopen(answer, "w") as output:
        json.dump(found, output)


if __name__ == "__main__":
    main()
