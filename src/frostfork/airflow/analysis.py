# SPDX-License-Identifier: Apache-2.0
"""DAG files for `frostfork analyze`: parsed as Airflow's DAG processor does it, in children of a process like its own.

This runs in the template process and its children (see frostfork._template), which call these functions by name.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import socket
from typing import Any

_state: dict[str, Any] = {}


def prepare() -> None:
    """Import what the DAG processor's manager has when it forks: so what is measured is what a parse adds."""
    from airflow.dag_processing.manager import DagFileProcessorManager

    processor = DagFileProcessorManager(max_runs=1)
    processor.prepare_process_context()
    with contextlib.suppress(Exception):  # Airflow makes it at the first fork: 76 modules
        _state["client"] = processor.client
    _state["processor"] = processor


def begin(files: list[str]) -> None:
    """Import what these files name of Airflow, as the manager does before a file's first child, and freeze."""
    from airflow.configuration import conf
    from airflow.utils.file import iter_airflow_imports

    if conf.getboolean("dag_processor", "parsing_pre_import_modules", fallback=True):
        for name in sorted({name for file in files for name in _named(iter_airflow_imports, file)}):
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    gc.freeze()


def _named(find: Any, file: str) -> list[str]:
    try:
        return list(find(file))
    except Exception:  # no Python, or gone
        return []


def list_files(folder: str) -> list[str]:
    """The files in which Airflow looks for DAGs: by .airflowignore and its safe mode."""
    from airflow.dag_processing.importers.python_importer import PythonDagImporter

    return sorted(PythonDagImporter().list_dag_files(folder))


def run(path: str, root: str) -> str:
    """The child's entry and the parse, as Airflow does both. Returns the first import error's last line, or nothing."""
    from airflow.dag_processing import processor
    from airflow.sdk.execution_time import comms, supervisor
    from pydantic import TypeAdapter

    os.dup2(2, 0)  # where the channel to the manager would be, over which nothing is said here
    supervisor._configure_logs_over_json_channel(os.dup(2))
    make = getattr(processor, "TypeAdapter", TypeAdapter)
    comms.CommsDecoder[processor.ToDagProcessor, processor.ToManager](
        body_decoder=make[processor.ToDagProcessor](processor.ToDagProcessor)
    )
    import structlog  # type: ignore[import-not-found]  # Airflow has it

    request = processor.DagFileParseRequest(file=path, bundle_path=root, bundle_name="dags-folder")
    result = processor._parse_file(request, structlog.get_logger(logger_name="task"))
    if result is None:
        return ""
    with contextlib.suppress(Exception):  # a name that another release of Airflow may not have
        comms._RequestFrame(id=1, body=result.model_dump()).as_bytes()
    errors = list((result.import_errors or {}).values())
    return errors[0].strip().rpartition("\n")[2] if errors else ""


def channel() -> tuple[int, int]:
    """Where a child's standard error goes, and its log lines, for which Airflow wants a socket."""
    ours, theirs = socket.socketpair()
    return ours.detach(), theirs.detach()


def warm() -> None:
    """What frostfork's manager prepares beside its imports."""
    from airflow.dag_processing import processor
    from airflow.sdk.execution_time import comms, supervisor

    from frostfork.airflow import child_logging
    from frostfork.airflow.command import replace_name
    from frostfork.airflow.decoder import ReadyTypeAdapter, warm_channel

    for module in (processor, comms):
        replace_name(module, "TypeAdapter", ReadyTypeAdapter)
    child_logging.prepare(supervisor)
    for messages in (processor.ToDagProcessor, comms.ToTask):
        ReadyTypeAdapter.prepare(messages)
    warm_channel(comms, processor)
