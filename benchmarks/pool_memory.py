# SPDX-License-Identifier: Apache-2.0
"""What workers cost in memory: idle ones, ones that did the same work, and 200 of them; and what the idle pool does.

The work is workload.py's: pandas, SQLAlchemy, pydantic. ProcessPoolExecutor forks from a parent that has imported them
all; the pool's template has imported them, and its second generation is warmed up with what the first one showed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import workload
from pairs import Figure, figure, fresh, progress
from pool_tasks import worked

from frostfork import ForkPool, LearningTemplate, RecyclePolicy

NAME = "pool_memory"
_TIMEOUT = 120
_WORKERS = 8
_MANY = 200
_IDLE_SECONDS = 20.0
_IMPORTS = ("pandas", "pydantic", "sqlalchemy.orm")


def missing() -> str:
    from importlib.util import find_spec

    absent = [name for name in ("pandas", "pydantic", "sqlalchemy") if find_spec(name) is None]
    if not absent:
        return ""
    return f"{NAME}: left out, for {', '.join(absent)} cannot be imported here (locks/demo.txt pins what it needs)."


def run(*, quick: bool) -> list[Figure]:
    rounds = 1 if quick else 5
    found: dict[str, list[Any]] = {"ours": [], "theirs": []}
    for at in range(rounds):
        for side in found:
            progress(f"{NAME}: {_WORKERS} workers of {side}, {at + 1} of {rounds}")
            found[side].append(fresh(__file__, "--measure", side))
    progress(f"{NAME}: {_MANY} workers")
    many = [fresh(__file__, "--measure", "many") for _ in range(min(rounds, 3))]
    after = [
        statistics.median(ours["worked"]) / statistics.median(theirs["worked"])
        for ours, theirs in zip(found["ours"], found["theirs"], strict=True)
    ]
    sides = ", ".join(
        f"{side} {statistics.median(each for one in runs for each in one['worked']) / 1e6:.1f} MB"
        for side, runs in found.items()
    )
    idle = [each / 1e6 for one in found["ours"] for each in one["idle"]]
    return [
        figure(NAME, "private bytes of an idle worker", idle, 1.0, unit="MB"),
        figure(
            NAME,
            "private bytes of a worker after equal work, by ProcessPoolExecutor",
            after,
            1 / 5,
            detail=sides,
        ),
        figure(
            NAME,
            f"memory in use for {_MANY} idle workers, by the sum of their private bytes",
            [one["used"] / one["private"] for one in many],
            None,
            detail=", ".join(f"{one['used'] / 1e6:.0f} MB of {one['private'] / 1e6:.0f}" for one in many),
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


def _private(pid: int) -> int:
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    )
    return sum(int(fields[f"Private_{kind}"].split()[0]) for kind in ("Clean", "Dirty")) * 1024


def _all_work(pool: Any) -> dict[str, int]:
    """Each worker does the work once; private bytes by pid."""
    with tempfile.TemporaryDirectory() as meeting:
        futures = [pool.submit(worked, meeting, _WORKERS) for _ in range(_WORKERS)]
        done = dict(future.result(_TIMEOUT) for future in futures)
    assert len(done) == _WORKERS
    return {str(pid): _private(pid) for pid in done}


def _ours() -> dict[str, Any]:
    with ForkPool(_WORKERS, template=LearningTemplate(preload=_IMPORTS)) as pool:
        _all_work(pool)
        pool.refork()
        _wait_for_all(pool)
        idle = [_private(each.pid) for each in pool.stats().workers]
        return {"idle": idle, "worked": list(_all_work(pool).values())}


def _theirs() -> dict[str, Any]:
    workload.imports()
    with ProcessPoolExecutor(_WORKERS, mp_context=multiprocessing.get_context("fork")) as pool:
        return {"worked": list(_all_work(pool).values())}


def _wait_for_all(pool: ForkPool) -> None:
    """Until all workers are of the newest generation and wait for tasks."""
    end = time.monotonic() + _TIMEOUT
    while time.monotonic() < end:
        stats = pool.stats()
        if all(each.generation == stats.generation and each.state == "idle" for each in stats.workers):
            return
        time.sleep(0.05)
    raise TimeoutError(f"the workers are not ready after {_TIMEOUT} s: {pool.stats()}")


def _cpu_seconds(pid: int) -> float:
    """To the nanosecond, of all threads."""
    return (
        sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir())
        / 1e9
    )


def _used() -> int:
    """Of the whole machine: page tables and all else that a process needs of the kernel are in it."""
    memory = psutil.virtual_memory()
    return memory.total - memory.available


def _many() -> dict[str, float]:
    before = _used()
    with ForkPool(_MANY, template=LearningTemplate(preload=_IMPORTS), recycle=RecyclePolicy()) as pool:
        for future in [pool.submit(abs, at) for at in range(_MANY * 10)]:
            future.result(_TIMEOUT)
        _wait_for_all(pool)
        zygotes = {psutil.Process(each.pid).ppid() for each in pool.stats().workers}
        cpu = {pid: _cpu_seconds(pid) for pid in (os.getpid(), *zygotes)}
        time.sleep(_IDLE_SECONDS)
        spent = {pid: (_cpu_seconds(pid) - was) / _IDLE_SECONDS for pid, was in cpu.items()}
        return {
            "used": _used() - before,
            "private": sum(_private(each.pid) for each in pool.stats().workers),
            "owner": spent.pop(os.getpid()),
            "zygote": max(spent.values()),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description="One measurement; prints what it found as JSON.")
    parser.add_argument("--measure", choices=("ours", "theirs", "many"), required=True)
    options = parser.parse_args()
    print(json.dumps({"ours": _ours, "theirs": _theirs, "many": _many}[options.measure]()))


if __name__ == "__main__":
    main()
