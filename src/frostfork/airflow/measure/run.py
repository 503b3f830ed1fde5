# SPDX-License-Identifier: Apache-2.0
"""`python -m frostfork.airflow.measure.run stock|frostfork RECORD -- FLAGS`: a recorded DAG processor.

The flags are Airflow's own. It is a process of its own, started alike for both variants.
"""

from __future__ import annotations

import sys
from typing import Any

from frostfork.airflow.measure.recorder import recorded


def main(arguments: list[str]) -> None:
    if len(arguments) < 3 or arguments[0] not in ("stock", "frostfork") or arguments[2] != "--":
        raise SystemExit("usage: python -m frostfork.airflow.measure.run stock|frostfork RECORD -- FLAGS")
    variant, record, _, *flags = arguments
    from frostfork.airflow.command import run_dag_processor

    run_dag_processor(flags, manager=recorded(_manager(variant), record))


def _manager(variant: str) -> type[Any]:
    if variant == "frostfork":
        from frostfork.airflow.manager import SharedParentManager

        return SharedParentManager
    from airflow.dag_processing.manager import DagFileProcessorManager

    return DagFileProcessorManager


if __name__ == "__main__":
    main(sys.argv[1:])
