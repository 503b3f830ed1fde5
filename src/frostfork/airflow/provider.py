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
STALE = {
    "warn": "say so in the log, once, and go on",
    "stop": "say so, preload nothing of it any more, and let children import it themselves where that can be done",
    "renew": "say so, and when the installation has come to rest start the DAG processor anew, in the same process",
}
# The steps of frostfork.warmup that can be chosen: default, and what each does. The rest of a warmup always runs.
STEPS = {
    "compact_code": (
        True,
        "lay the code that children run side by side, after learning in children which code that is",
    ),
    "drain_heap": (True, "hold free pieces of the heap, so that children do not fill them in shared pages"),
    "drain_pools": (True, "hold free blocks between Python's own objects, for the same reason"),
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
                        "Modules that are never imported in the parent, whatever else says so. What is known\n"
                        "to be unsafe there is denied without being listed here.\n" + _PATTERNS,
                        default="",
                        example="grpc,torch",
                    ),
                    "trust": _option(
                        "Modules that may be imported in the parent although the canary found something, or\n"
                        "although they are on frostfork's own list of unsafe ones. ``module:kind`` trusts it in\n"
                        "that one respect, as ``frostfork airflow explain`` names it. ``deny`` wins.\n"
                        + _PATTERNS,
                        default="",
                        example="mylib.metrics:thread",
                    ),
                    "min_children": _option(
                        "How many children must have imported a module before the parent does.",
                        default="2",
                        example="5",
                        kind="integer",
                    ),
                    "min_files": _option(
                        "How many different DAG files must have imported a module before the parent does: with 2,\n"
                        "what a single file uses is left to its own parses, however often they come.",
                        default="1",
                        example="2",
                        kind="integer",
                    ),
                    "max_megabytes": _option(
                        "How much memory the parent's preloads may take in all, as children showed it. What saves\n"
                        "most for its size comes first. 0 is no limit.",
                        default="1024",
                        example="400",
                        kind="integer",
                    ),
                    "max_seconds": _option(
                        "How long the parent's imports may take in all. 0 is no limit.",
                        default="120",
                        example="20",
                        kind="integer",
                    ),
                    "canary": _option(
                        "Whether a sacrificial child imports a module before the parent does. What crashes, hangs,\n"
                        "exits, starts threads or changes the process there is left to the children.",
                        default="True",
                        example="False",
                        kind="boolean",
                    ),
                    "canary_seconds": _option(
                        "How long a canary may take over one module.",
                        default="30",
                        example="60",
                        kind="integer",
                    ),
                    "canary_megabytes": _option(
                        "How much memory a canary may take.", default="1024", example="4096", kind="integer"
                    ),
                    "ledger": _option(
                        "The file in which it keeps what children imported, so that a new start need not learn\n"
                        "again: a path, or a name in AIRFLOW_HOME. Several DAG processors may share one. Empty:\n"
                        "nothing is kept.",
                        default="frostfork-ledger.json",
                        example="/var/lib/airflow/frostfork-ledger.json",
                    ),
                    "ledger_days": _option(
                        "What was not used for so many days is forgotten.",
                        default="14",
                        example="60",
                        kind="integer",
                    ),
                    "stale": _option(
                        "What to do when a distribution that the parent imported from changes on disk.\n\n"
                        + _bullets(STALE),
                        default="stop",
                        example="renew",
                    ),
                    "zygote": _option(
                        "Whether the parsing children are forked from a process of their own, which learns,\n"
                        "imports and is warmed up for them. The manager then stays as small as Airflow's, its work\n"
                        "copies no page of its children, and what was imported can be exchanged without\n"
                        "starting the manager anew. When False the manager itself is their parent.",
                        default="True",
                        example="False",
                        kind="boolean",
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


def default_of(option: str) -> str:
    """What an option is where nobody says otherwise."""
    default: str = provider_info()["config"][SECTION]["options"][option]["default"]
    return default


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
