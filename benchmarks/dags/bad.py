# SPDX-License-Identifier: Apache-2.0
"""Generated DAG files that go wrong, or do at import what a DAG file should not do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import body

if TYPE_CHECKING:
    import random


def missing(rng: random.Random, name: str) -> str:
    """Imports a module that is not installed."""
    made = body.source(rng, name)
    made.imports.add(f"from internal_{rng.choice(body.SUBJECTS)}_client import Client")
    made.top.append(f"CLIENT = Client(timeout={rng.randint(5, 60)})")
    body.add_dag(rng, made, name)
    return made.text()


def syntax(rng: random.Random, name: str) -> str:
    """Saved in the middle of an edit: a bracket is not closed."""
    made = body.source(rng, name)
    body.add_dag(rng, made, name)
    return made.text() + f"\nLIMITS = {{'rows': {rng.randint(1, 999)}, 'bytes': (\n"


def exits(rng: random.Random, name: str) -> str:
    """A script turned into a DAG file, which ends itself where its environment is not set."""
    made = body.source(rng, name)
    made.imports |= {"import os", "import sys"}
    made.top += [
        f'if "{name.upper()}_TOKEN" not in os.environ:',
        f'    print("{name.upper()}_TOKEN is not set")',
        f"    sys.exit({rng.randint(1, 3)})",
    ]
    body.add_dag(rng, made, name)
    return made.text()


def thread(rng: random.Random, name: str) -> str:
    """Starts a thread on import, as some clients of metrics and feature flags do."""
    made = body.source(rng, name)
    made.imports |= {"import queue", "import threading"}
    made.top += [
        "EVENTS: queue.Queue = queue.Queue()",
        "",
        "",
        "def _drain() -> None:",
        "    while True:",
        "        EVENTS.get()",
        "",
        "",
        f'threading.Thread(target=_drain, name="events-{rng.randint(1, 99)}", daemon=True).start()',
        f'EVENTS.put("{name} was read")',
    ]
    body.add_dag(rng, made, name)
    return made.text()
