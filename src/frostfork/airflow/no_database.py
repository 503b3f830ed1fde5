# SPDX-License-Identifier: Apache-2.0
"""Imports in the manager without its database, as Airflow gives it to none of its children.

The manager has a session to the metadata database; a child that parses a file has not. An installed module that takes
`Session` from `airflow.settings` at its top would, imported in the manager, hand the real one to every child. Here such
a module finds what it finds in a child. One that reads a Variable or a Connection at its top would hand all children
the value of that day: it is not imported at all.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator

_HIDDEN = ("engine", "async_engine", "Session", "AsyncSession", "NonScopedSession")
_ADDRESS = "airflow-db-not-allowed:///"
_ADDRESSES = ("SQL_ALCHEMY_CONN", "SQL_ALCHEMY_CONN_ASYNC")
_VARIABLES = ("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "AIRFLOW__CORE__SQL_ALCHEMY_CONN")


class AskedDatabaseError(BaseException):
    """No Exception: Variable.get() would take that for "not found", and give its default for good."""


@contextlib.contextmanager
def no_database() -> Iterator[None]:
    """Hide the database from what is imported in this block, by the names by which Airflow hides it in a child."""
    settings = sys.modules.get("airflow.settings")
    if settings is None:
        yield
        return
    from airflow.sdk.execution_time.cache import SecretCache
    from airflow.sdk.execution_time.supervisor import BlockedDBSession

    # Every look-up begins there, Airflow's own as well as the task SDK's, whatever it does next.
    asked = {name: vars(SecretCache)[name] for name in ("get_variable", "get_connection_uri")}
    names = vars(settings)
    shown = {name: names[name] for name in (*_HIDDEN, *_ADDRESSES, "configure_orm") if name in names}
    variables = {name: os.environ.get(name) for name in _VARIABLES}
    for name in _HIDDEN:
        names.pop(name, None)
    names["Session"], names["configure_orm"] = BlockedDBSession, _refuse
    for name in _ADDRESSES:
        names[name] = _ADDRESS
    os.environ.update(dict.fromkeys(_VARIABLES, _ADDRESS))
    for name in asked:
        setattr(SecretCache, name, _refuse_secret)
    try:
        yield
    finally:
        for name, method in asked.items():
            setattr(SecretCache, name, method)
        for name in ("Session", "configure_orm", *_ADDRESSES):
            names.pop(name, None)
        names.update(shown)
        for name, value in variables.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise RuntimeError("the database is not for modules that are imported for children")


def _refuse_secret(*_: Any, **__: Any) -> NoReturn:
    raise AskedDatabaseError("it reads a Variable or Connection when it is imported, which may change later")
