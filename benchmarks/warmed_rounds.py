# SPDX-License-Identifier: Apache-2.0
"""A parent that learns, preloads, warms up and forks, a thousand times over: does it grow?

Its children import modules of the standard library, another one in each of the first rounds and then the same again,
and the parent makes cyclic garbage all the time. Resident memory, as the mean over the last tenth of the rounds against
that over the third: until then the interpreter copies its table of interned strings, two megabytes, to and fro, warmup
or not. Beside it the same rounds without the warmup.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os

from pairs import BenchmarkError, Figure, figure, fresh, progress, resident

import frostfork

NAME = "warmed_rounds"
GOAL = 1.02
_MODULES = (
    "asyncio",
    "concurrent.futures",
    "csv",
    "decimal",
    "email.mime.text",
    "html.parser",
    "http.server",
    "logging.config",
    "sqlite3",
    "tarfile",
    "unittest.mock",
    "urllib.request",
    "uuid",
    "xml.dom.minidom",
    "zipfile",
)


def run(*, quick: bool) -> list[Figure]:
    rounds, runs = (200, 1) if quick else (1_000, 3)
    found = []
    for at in range(runs):
        progress(f"{NAME}: {rounds:,} rounds of learn, preload, warm up, fork, {at + 1} of {runs}")
        found.append(fresh(__file__, "--rounds", rounds))
    progress(f"{NAME}: {rounds:,} rounds without the warmup")
    control = fresh(__file__, "--rounds", rounds, "--without")
    series, beside = (" ".join(f"{size / 1e6:.1f}" for size in record) for record in (found[-1], control))
    return [
        figure(
            NAME,
            f"resident at the end of {rounds:,} rounds / near the beginning",
            [record[-1] / record[2] for record in found],
            GOAL,
            detail=f"MB, mean over each {rounds // 10} of the last run: {series}; without warmup: {beside}",
        )
    ]


def _round(ledger: frostfork.Ledger, preloader: frostfork.Preloader, at: int, warm: bool) -> None:
    journal = frostfork.Journal()
    pid = frostfork.fork()
    if pid == 0:
        with frostfork.observe(journal, pages=False, code=at <= 2 * len(_MODULES) or at % 50 == 0):
            module = importlib.import_module(_MODULES[at % len(_MODULES)])
            json.loads(json.dumps([module.__name__] * 100))
        os._exit(0)
    if os.waitpid(pid, 0)[1] != 0:
        raise BenchmarkError("a child of the rounds failed")
    preloader.learn(frostfork.Observation.from_journal(journal))
    journal.close()
    if warm:
        frostfork.warmup(ledger)


def _rounds(rounds: int, warm: bool) -> list[int]:
    """Mean resident bytes of each tenth."""
    preloader = frostfork.Preloader(frostfork.PreloadPolicy(frostfork.find_installed()))
    record, seen = [], []
    for at in range(1, rounds + 1):
        garbage: list[object] = [[bytes(300)] for _ in range(1000)]
        garbage.append(garbage)
        _round(preloader.ledger, preloader, at, warm)
        del garbage
        seen.append(resident())
        if at % (rounds // 10) == 0:
            record.append(sum(seen) // len(seen))
            seen.clear()
    return record


def main() -> None:
    parser = argparse.ArgumentParser(
        description="One run; prints resident bytes, ten times on the way, as JSON."
    )
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--without", action="store_true", help="leave the warmup out")
    options = parser.parse_args()
    print(json.dumps(_rounds(options.rounds, not options.without)))


if __name__ == "__main__":
    main()
