# SPDX-License-Identifier: Apache-2.0
"""What workers cost in memory: idle ones, ones that did the same work, and 200 of them; and what the idle pool does.

The work is workload.py's: pandas, SQLAlchemy, pydantic. ProcessPoolExecutor forks from a parent that has imported them
all; the pool's template has imported them, and its later generations are warmed up with what workers showed. In
"rehearsed" the zygote has done the work once itself.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import workload
from pairs import Figure, figure, fresh, progress
from pool_tasks import worked

from frostfork import ForkPool, LearningTemplate

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "pool_memory"
_TIMEOUT = 120
_WORKERS = 8
_MANY = 200
_IDLE_SECONDS = 20.0
_IMPORTS = ("pandas", "pydantic", "sqlalchemy.orm")


def missing() -> str:
    return workload.missing(NAME)


def run(*, quick: bool) -> list[Figure]:
    rounds = 1 if quick else 5
    found: dict[str, list[Any]] = {"ours": [], "rehearsed": [], "theirs": []}
    for at in range(rounds):
        for side in found:
            progress(f"{NAME}: {_WORKERS} workers of {side}, {at + 1} of {rounds}")
            found[side].append(fresh(__file__, "--measure", side))
    progress(f"{NAME}: {_MANY} workers")
    many = [fresh(__file__, "--measure", "many") for _ in range(min(rounds, 3))]
    theirs = [statistics.median(one["worked"]) for one in found["theirs"]]
    after = {
        side: [
            statistics.median(one["worked"]) / other for one, other in zip(found[side], theirs, strict=True)
        ]
        for side in ("ours", "rehearsed")
    }
    sides = ", ".join(
        f"{side} {statistics.median(each for one in runs for each in one['worked']) / 1e6:.1f} MB"
        for side, runs in found.items()
    )
    idle = [each / 1e6 for one in found["ours"] for each in one["idle"]]
    return [
        figure(NAME, "private bytes of an idle worker", idle, 1.0, unit="MB"),
        *(
            figure(
                NAME,
                f"private bytes after equal work, {side}, by ProcessPoolExecutor",
                after[side],
                1 / 5,
                detail=sides,
            )
            for side in after
        ),
        figure(
            NAME,
            f"what {_MANY} idle workers add to PSS, by the sum of their private bytes",
            [one["pss"] / one["private"] for one in many],
            1.1,
            detail=f"beside a pool of one; private {many[0]['private'] / _MANY / 1e6:.2f} MB a worker",
        ),
        *(
            figure(
                NAME,
                f"processor time of the idle {who}, {_MANY} workers",
                [one[who] * 100 for one in many],
                0.1,
                unit="%",
            )
            for who in ("owner", "zygote")
        ),
    ]


def _memory(pid: int) -> Counter[str]:
    """Bytes by name, as the kernel sums them up."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return Counter(
        {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
    )


def _private(pid: int) -> int:
    memory = _memory(pid)
    return memory["Private_Clean"] + memory["Private_Dirty"]


def _all_work(pool: Any) -> list[int]:
    """Each worker does the work once; private bytes of each."""
    with tempfile.TemporaryDirectory() as meeting:
        futures = [pool.submit(worked, meeting, _WORKERS) for _ in range(_WORKERS)]
        done = {future.result(_TIMEOUT) for future in futures}
    assert len(done) == _WORKERS
    return [_private(pid) for pid in done]


def _ours(rehearse: Callable[[], object] | None = None) -> dict[str, Any]:
    with ForkPool(_WORKERS, template=LearningTemplate(preload=_IMPORTS, rehearse=rehearse)) as pool:
        # The first workers show what they import, the next, when they end, which code they run.
        for generation in (2, 3, 4, 5):
            _all_work(pool)
            pool.refork()
            _wait_for_all(pool, generation)
        idle = [_private(each.pid) for each in pool.stats().workers]
        return {"idle": idle, "worked": _all_work(pool)}


def _theirs() -> dict[str, Any]:
    workload.imports()
    with ProcessPoolExecutor(_WORKERS, mp_context=multiprocessing.get_context("fork")) as pool:
        return {"worked": _all_work(pool)}


def _wait_for_all(pool: ForkPool, generation: int = 1) -> None:
    """Until all workers are of this generation and wait for tasks."""
    end = time.monotonic() + _TIMEOUT
    while time.monotonic() < end:
        stats = pool.stats()
        if all(each.generation == generation and each.state == "idle" for each in stats.workers):
            return
        time.sleep(0.05)
    raise TimeoutError(f"the workers are not ready after {_TIMEOUT} s: {pool.stats()}")


def _cpu_seconds(pid: int) -> float:
    """To the nanosecond, of all threads."""
    return (
        sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir())
        / 1e9
    )


def _many() -> dict[str, float]:
    with ForkPool(1, template=LearningTemplate(preload=_IMPORTS)) as pool:
        pool.submit(abs, -1).result(_TIMEOUT)
        _wait_for_all(pool)
        few = _tree_pss(pool)
    with ForkPool(_MANY, template=LearningTemplate(preload=_IMPORTS)) as pool:
        for future in [pool.submit(abs, at) for at in range(_MANY * 10)]:
            future.result(_TIMEOUT)
        _wait_for_all(pool)
        ours = (os.getpid(), *_zygotes(pool))
        cpu = {pid: _cpu_seconds(pid) for pid in ours}
        time.sleep(_IDLE_SECONDS)
        spent = {pid: (_cpu_seconds(pid) - was) / _IDLE_SECONDS for pid, was in cpu.items()}
        return {
            "pss": _tree_pss(pool) - few,
            "private": sum(_private(each.pid) for each in pool.stats().workers),
            "owner": spent.pop(os.getpid()),
            "zygote": max(spent.values()),
        }


def _zygotes(pool: ForkPool) -> set[int]:
    return {psutil.Process(each.pid).ppid() for each in pool.stats().workers}


def _tree_pss(pool: ForkPool) -> int:
    return sum(_memory(pid)["Pss"] for pid in (*_zygotes(pool), *(each.pid for each in pool.stats().workers)))


_MEASURES = {
    "ours": _ours,
    "rehearsed": functools.partial(_ours, workload.work),
    "theirs": _theirs,
    "many": _many,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="One measurement; prints what it found as JSON.")
    parser.add_argument("--measure", choices=_MEASURES, required=True)
    options = parser.parse_args()
    print(json.dumps(_MEASURES[options.measure]()))


if __name__ == "__main__":
    main()
