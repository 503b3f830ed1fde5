# SPDX-License-Identifier: Apache-2.0
"""Airflow's own ``dag-processor`` command around a manager class of our choice.

Airflow 3.3 has no option that names the class of the DAG processor's manager. Its command looks the class up by name
in its own module when it runs, so the name is given another class there, for this process alone; all else, flags,
daemon mode, logging, heartbeats and the job in the metadata database, stays Airflow's.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from frostfork.errors import UnsupportedAirflowError

if TYPE_CHECKING:
    from collections.abc import Sequence


def run_dag_processor(arguments: Sequence[str], manager: type) -> None:
    """Run ``airflow dag-processor ARGUMENTS`` with this manager class. Returns when Airflow's command does."""
    from airflow import configuration
    from airflow.cli.cli_parser import get_parser
    from airflow.cli.commands import dag_processor_command

    replace_name(dag_processor_command, "DagFileProcessorManager", manager)
    conf = configuration.write_default_airflow_configuration_if_needed()
    if conf.get("core", "security") == "kerberos":  # as airflow.__main__ does for every command
        os.environ["KRB5CCNAME"] = conf.get("kerberos", "ccache")
        os.environ["KRB5_KTNAME"] = conf.get("kerberos", "keytab")
    parsed = get_parser().parse_args(["dag-processor", *arguments])
    parsed.func(parsed)


def replace_name(module: object, name: str, value: type) -> None:
    """Give a name of an Airflow module another value; raises UnsupportedAirflowError where the name is not found.

    The value must be a subclass of what it stands in for, so that Airflow meets what it expects.
    """
    from airflow import __version__

    found = getattr(module, name, None)
    if not isinstance(found, type) or not issubclass(value, found):
        where = f"{getattr(module, '__name__', module)}.{name}"
        raise UnsupportedAirflowError(
            f"Airflow {__version__} has no {where} that {value.__name__} could replace."
        )
    setattr(module, name, value)
