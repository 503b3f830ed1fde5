# SPDX-License-Identifier: Apache-2.0
"""What frostfork tells Airflow about itself: the ``apache_airflow_provider`` entry point.

Airflow calls ``provider_info`` in every command that shows or writes configuration, so this module imports
nothing. The options below are also the only place where the defaults of ``[frostfork]`` are written:
``settings`` reads them. Airflow's schema wants every default as text.
"""

from __future__ import annotations

from typing import Any

PACKAGE = "frostfork"
SECTION = "frostfork"

COMPONENTS = {
    "dag-processor": "the processes that parse DAG files",
    "scheduler": "LocalExecutor's workers and the task processes they start, the log and health servers",
    "triggerer": "the process that runs the triggers",
    "celery-worker": "the children of Celery's prefork pool, first and later ones, and their task processes",
    "api-server": "gunicorn's workers with ``[api] server_type = gunicorn`` (uvicorn's share nothing)",
}
PRELOAD_MODES = {
    "approved": "only modules that match [frostfork] approved, with what they import",
    "learned": "whatever children import from installed distributions",
    "off": "nothing",
}
# The steps of frostfork.warmup that can be chosen: default, and what each does. The rest of a warmup always runs.
STEPS = {
    "compact_code": (
        True,
        "lay the code that children run side by side, after learning in children which code that is",
    ),
    "drain_heap": (True, "hold free pieces of the heap, so that children do not fill them in shared pages"),
    "immortalize": (
        True,
        "take reference counts away from what modules hold, which then stays in memory (Python 3.12+)",
    ),
    "collapse": (False, "put large parents on huge pages, which makes their forks faster"),
    "merge": (False, "let the kernel merge equal pages (KSM), for Pythons without immortal objects"),
}

_PATTERNS = (
    "A comma-separated list. A name stands for the module and everything below it, "
    "``*`` for any run of characters."
)


def provider_info() -> dict[str, Any]:
    """Return the metadata in the shape of Airflow's ``provider_info.schema.json``."""
    return {
        "package-name": PACKAGE,
        "name": "frostfork",
        "description": "Forked Airflow processes that keep sharing the memory of their parent.",
        "config": {
            SECTION: {
                "description": "Memory sharing between Airflow's processes and the children they fork.",
                "options": {
                    "enabled": _option(
                        "The one switch. When True, every forked child of the components below starts by\n"
                        "taking all that it inherited out of the garbage collector's sight, so that the\n"
                        "child's collections no longer copy the parent's memory.\n"
                        "When False, frostfork does nothing.",
                        default="False",
                        example="True",
                        kind="boolean",
                    ),
                    "components": _option(
                        "The components of Airflow in which it acts, separated by commas. ``all`` stands\n"
                        "for all of them, and a leading minus leaves one out.\n\n" + _bullets(COMPONENTS),
                        default="all",
                        example="all,-triggerer",
                    ),
                    "preload": _option(
                        "Which modules ``frostfork airflow dag-processor`` imports in the parent of the\n"
                        "parsing processes, each only after a child imported it without error.\n\n"
                        + _bullets(PRELOAD_MODES),
                        default="learned",
                        example="approved",
                    ),
                    "approved": _option(
                        "Modules that may be imported in the parent when ``preload`` is ``approved``.\n"
                        + _PATTERNS,
                        default="",
                        example="pandas,google.cloud.*",
                    ),
                    "deny": _option(
                        "Modules that are never imported in the parent, whatever ``preload`` says: those\n"
                        "that start threads or open connections when they are imported.\n" + _PATTERNS,
                        default="",
                        example="grpc,torch",
                    ),
                    "blame": _option(
                        "Judge every n-th parsing child: which shared pages did it copy, and what did it\n"
                        "write there. The sum is logged when the DAG processor ends. 0 judges none; a child\n"
                        "that is judged takes some tenths of a second longer.",
                        default="0",
                        example="100",
                        kind="integer",
                    ),
                    **{
                        name: _option(
                            f"Whether the parent of ``frostfork airflow dag-processor`` is to\n{meaning}.",
                            default=str(default),
                            example=str(not default),
                            kind="boolean",
                        )
                        for name, (default, meaning) in STEPS.items()
                    },
                },
            }
        },
    }


def _option(description: str, *, default: str, example: str, kind: str = "string") -> dict[str, Any]:
    return {
        "description": description + "\n",
        "version_added": "0.1.0",
        "type": kind,
        "example": example,
        "default": default,
    }


def _bullets(meanings: dict[str, str]) -> str:
    return "\n".join(f"- ``{name}``: {meaning}" for name, meaning in meanings.items())
