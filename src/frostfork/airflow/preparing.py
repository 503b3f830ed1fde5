# SPDX-License-Identifier: Apache-2.0
"""What Airflow sets up in every parsing child, made ready in their parent."""

from __future__ import annotations

import contextlib

from airflow.dag_processing import manager as airflow_manager
from airflow.dag_processing import processor as airflow_processor
from airflow.sdk.execution_time import comms, supervisor

from frostfork.airflow import child_logging
from frostfork.airflow.command import replace_name
from frostfork.airflow.decoder import ReadyTypeAdapter, warm_channel


def lighten_children() -> None:
    """Give names of Airflow's modules what does the same with less in a child. Raises UnsupportedAirflowError."""
    for module in (airflow_processor, comms):
        replace_name(module, "TypeAdapter", ReadyTypeAdapter)
    child_logging.prepare(supervisor)


def build_decoders() -> None:
    """Build what children decode their messages with."""
    for messages in (airflow_processor.ToDagProcessor, comms.ToTask):
        ReadyTypeAdapter.prepare(messages)
    warm_channel(comms, airflow_processor)


def initialize_stats() -> None:
    """Tell where metrics go, as the manager does for its own children. Each child opens its own way there."""
    with contextlib.suppress(AttributeError):  # names of Airflow's that another release may not have
        airflow_manager.stats.initialize(
            factory=airflow_manager.stats_utils.get_stats_factory(),
            export_legacy_names=airflow_manager.conf.getboolean("metrics", "legacy_names_on"),
        )
