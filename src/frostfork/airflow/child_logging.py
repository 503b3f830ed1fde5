# SPDX-License-Identifier: Apache-2.0
"""Logging as Airflow sets it up in every child, without writing what is there already.

Airflow's child sends its log lines over a channel of its own, for which it runs logging.config.dictConfig. That gives
every logger of the process its attributes again, most of them those that it has, and clears the caches of all loggers
for each of the 76 whose level it sets: 2 ms and 140 copied pages. The set-up stays Airflow's and the standard
library's. While it runs, two functions of logging are replaced by ones with the same effect, which look before they
write.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import logging.config
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["prepare", "thrifty_set_up"]

# What the set-up imports in each child: it is there before the first fork.
_MODULES = (
    "airflow.sdk.log",
    "airflow.sdk.configuration",
    "airflow.sdk._shared.logging",
    "httpcore",
    "httpx",
)


def prepare(supervisor: Any) -> None:
    """Have children of this process set up their logging thriftily; call it in the parent.

    supervisor: the Airflow module that forks. Where a name that is needed is not found, all stays as it is.
    """
    set_up = getattr(supervisor, "_configure_logs_over_json_channel", None)
    if not callable(set_up) or isinstance(set_up, functools.partial):
        return
    for module in _MODULES:
        with contextlib.suppress(Exception):  # Airflow does without those that are missing
            importlib.import_module(module)
    supervisor._configure_logs_over_json_channel = functools.partial(_run, set_up)


def _run(set_up: Callable[[int], None], log_fd: int) -> None:
    with thrifty_set_up():
        set_up(log_fd)


@contextlib.contextmanager
def thrifty_set_up() -> Iterator[None]:
    """What configures logging in here writes only what changes, and clears the loggers' caches once, at the end.

    For a process with one thread: a child that was just forked.
    """
    clear, reset = (
        getattr(logging.Manager, "_clear_cache", None),
        getattr(logging.config, "_handle_existing_loggers", None),
    )
    if clear is None or reset is None:
        yield
        return
    asked: set[logging.Manager] = set()

    def note(manager: logging.Manager) -> None:
        asked.add(manager)

    logging.Manager._clear_cache = note  # type: ignore[attr-defined]
    logging.config._handle_existing_loggers = _reset_existing  # type: ignore[attr-defined]
    try:
        yield
    finally:
        logging.Manager._clear_cache = clear  # type: ignore[attr-defined]
        logging.config._handle_existing_loggers = reset  # type: ignore[attr-defined]
        for manager in asked:
            _clear_caches(manager)


def _clear_caches(manager: logging.Manager) -> None:
    for logger in (manager.root, *manager.loggerDict.values()):
        cache = getattr(logger, "_cache", None)  # a PlaceHolder has none
        if cache:
            cache.clear()


def _reset_existing(existing: list[str], child_loggers: list[str], disable_existing: bool) -> None:
    """What logging.config does to the loggers that a configuration does not name."""
    loggers = logging.root.manager.loggerDict
    children = set(child_loggers)
    for name in existing:
        logger: Any = loggers[name]
        if name not in children:
            if getattr(logger, "disabled", None) is not disable_existing:
                logger.disabled = disable_existing
        elif not isinstance(logger, logging.PlaceHolder):
            if logger.level != logging.NOTSET:
                logger.setLevel(logging.NOTSET)
            if logger.handlers:
                logger.handlers = []
            if logger.propagate is not True:
                logger.propagate = True
