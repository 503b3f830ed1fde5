# SPDX-License-Identifier: Apache-2.0
"""The switch: Airflow imports this module at the start of each of its processes.

It is an ``airflow.policy`` entry point. The group is meant for cluster policies; it is used because it is the
one supported place that every component passes before it forks: airflow.settings.initialize() loads it
through pluggy, and a module without hook implementations is welcome there. The at-fork hook installed from
here then meets every later fork, whoever calls it: multiprocessing for LocalExecutor, the task supervisor,
the triggerer, billiard, gunicorn; and the forks of their children, which inherit it.

Airflow's Celery provider thaws the parent once the first children run, so later children would start thawed:
the hook freezes each of them again. Celery's parent needs one thing more, see ``frostfork.celery``.

Two things follow from the early hour. Logging is not configured yet, so a warning goes to stderr through
logging's last resort. And an exception here would end the Airflow process, so none may leave.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__: list[str] = []

_COMMANDS = {
    ("api-server",): "api-server",
    ("celery", "worker"): "celery-worker",
    ("dag-processor",): "dag-processor",
    ("scheduler",): "scheduler",
    ("triggerer",): "triggerer",
}


def _component(argv: Sequence[str], orig_argv: Sequence[str]) -> str | None:
    """Name the component that this command line runs; None for anything else: a script, ``airflow dags``."""
    if not argv:
        return None
    words = tuple(argv[1:])
    path = argv[0].split("/")
    if argv[0] == "-m":  # the package is imported before runpy puts the path of __main__ here
        position = len(orig_argv) - len(words) - 1
        program = orig_argv[position].removeprefix("-m") if position > 0 else ""
    elif path[-1] == "__main__.py" and len(path) > 1:
        program = path[-2]
    else:
        program = path[-1]
    if program == "frostfork" and words[:1] == ("airflow",):
        program, words = "airflow", words[1:]
    if program != "airflow":
        return None
    return _COMMANDS.get(words[:1]) or _COMMANDS.get(words[:2])


def _switch_on() -> None:
    component = _component(sys.argv, sys.orig_argv)
    if component is None:
        return
    from frostfork.airflow.settings import is_enabled, load

    if is_enabled() and load().covers(component):
        import frostfork

        frostfork.install()
        if component == "celery-worker":
            from frostfork.celery import keep_parent_frozen

            keep_parent_frozen()


def _warn(reason: Exception) -> None:
    import logging

    logging.getLogger("frostfork.airflow").warning("frostfork stays off in this process: %s", reason)


try:
    _switch_on()
except Exception as reason:
    _warn(reason)
