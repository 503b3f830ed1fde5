# SPDX-License-Identifier: Apache-2.0
"""`frostfork airflow ...`: Airflow's components over a shared parent."""

from __future__ import annotations

import importlib.util

import click

from frostfork.errors import FrostforkError

_OFF = (
    "frostfork is off for the DAG processor, so Airflow's own runs. To switch it on, set [frostfork] enabled = True in "
    "airflow.cfg or AIRFLOW__FROSTFORK__ENABLED=True (and leave dag-processor in [frostfork] components)."
)


@click.group()
def airflow() -> None:
    """Airflow's components over a shared parent."""
    if importlib.util.find_spec("airflow") is None:
        raise click.ClickException("Airflow is not installed here: pip install 'frostfork[airflow]'")


# Airflow parses its own flags, --help included: nothing of them is known here.
@airflow.command(
    "dag-processor",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def dag_processor(arguments: tuple[str, ...]) -> None:
    """Airflow's DAG processor; takes the flags of `airflow dag-processor`.

    The parent imports what its children import, so that they need not. `[frostfork] enabled` in Airflow's
    configuration switches it on; where it is off, Airflow's own manager runs.
    """
    try:
        from frostfork.airflow.command import run_dag_processor
        from frostfork.airflow.settings import load

        manager: type
        if load().covers("dag-processor"):
            from frostfork.airflow.manager import SharedParentManager

            manager = SharedParentManager
        else:
            click.echo(_OFF, err=True)
            from airflow.dag_processing.manager import DagFileProcessorManager

            manager = DagFileProcessorManager
        run_dag_processor(arguments, manager)
    except FrostforkError as error:
        raise click.ClickException(str(error)) from error
