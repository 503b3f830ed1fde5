# SPDX-License-Identifier: Apache-2.0
"""Runs CPython's own tests twice, as they are and with what is ours, and compares them test by test.

    python compare.py [--ours warmed|fork|zygote|exec|pool] [--jobs N] [--timeout SECONDS] [--keep FOLDER] [MODULE ...]

warmed: in a warmed process. fork: with our multiprocessing context in the place of fork. zygote, exec: with our context
in the place of forkserver, its zygote forked or a new interpreter. pool: with ForkPool in the place of
ProcessPoolExecutor.

Exit status: 0 when every difference is explained, 1 when one is not, 2 when this interpreter has no tests to run.
Where a module differs, both runs of it are made once more, one at a time. A test that two plain runs disagree on is
flaky and proves nothing; a test that differed once and then agreed is named as unsteady. A process with ours that
crashes or hangs is never excused, unless the plain one did the same.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import json
import os
import pkgutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from allowed import reason
from suites import write_suites

# What the objects, the code and the types of a process go through; a name that this version lacks is left out.
WARMED = [
    "test_dict",
    "test_set",
    "test_list",
    "test_tuple",
    "test_weakref",
    "test_weakset",
    "test_gc",
    "test_finalization",
    "test_descr",
    "test_class",
    "test_generators",
    "test_coroutines",
    "test_asyncgen",
    "test_asyncio",
    "test_json",
    "test_re",
    "test_functools",
    "test_dataclasses",
    "test_enum",
    "test_typing",
    "test_types",
    "test_abc",
    "test_collections",
    "test_contextlib",
    "test_copy",
    "test_pickle",
    "test_threading",
    "test_threading_local",
    "test_inspect",
    "test_traceback",
    "test_exceptions",
    "test_code",
    "test_frame",
    "test_dis",
    "test_opcache",
    "test_type_cache",
    "test_monitoring",
    "test_sys_settrace",
    "test_sys_setprofile",
    "test_fork1",
    "test_multiprocessing_fork",
]
# What suites.py makes of test._test_multiprocessing; tests with threads in the place of processes are left out.
CONTEXT = ("processes", "manager", "misc")
MODULES = {
    "warmed": WARMED,
    "fork": [f"mp_fork_{kind}" for kind in CONTEXT],
    "zygote": [f"mp_forkserver_{kind}" for kind in CONTEXT],
    "exec": [f"mp_forkserver_{kind}" for kind in CONTEXT],
    "pool": ["test_concurrent_futures"],  # of which run_module.py takes what is about processes
}
PLACES = Path(__file__).with_name("places")
RUNNER = Path(__file__).with_name("run_module.py")


class Run(NamedTuple):
    """One process: how it ended, and per test how often each outcome was seen (a subtest may come more than once)."""

    ended: str
    outcomes: dict[str, Counter[str]]
    details: dict[str, str]
    ready: dict[str, dict[str, object]]  # what was done before the tests, if ours was to be tested
    seconds: float

    def of(self, test: str) -> str:
        """The outcome in words: the unhappy ones count most, "absent" when the test was not seen."""
        seen = self.outcomes.get(test)
        return ", ".join(sorted(seen.elements())) if seen else "absent"


def names(wanted: list[str]) -> Iterator[str]:
    """The importable names of these test modules: a package of tests becomes its modules, each run by itself."""
    import test

    here = {module.name: module for module in pkgutil.iter_modules(test.__path__)}
    for name in wanted:
        module = here.get(name.split(".")[0])
        if name.startswith("mp_"):
            yield name
        elif name == "test_multiprocessing_fork" and module is None and "_test_multiprocessing" in here:
            yield f"test.{name}"  # some installations lack it; run_module.py makes it
        elif module is None:
            print(f"{name}: this Python has none", flush=True)
        else:
            parts = pkgutil.iter_modules([str(Path(test.__path__[0], name))]) if module.ispkg else []
            yield from [f"test.{name}.{part.name}" for part in parts if part.name.startswith("test_")] or [
                f"test.{name}"
            ]


def run(how: str, name: str, timeout: float, keep: Path) -> Run:
    """One test module in a process, a session and a folder of its own."""
    results = keep / f"{name}.{how}.{time.monotonic_ns()}"
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, open(f"{results}.log", "wb") as log:
        # The hash seed makes both runs meet the elements of a set in the same order.
        process = subprocess.Popen(
            [sys.executable, str(RUNNER), how, name, str(results)],
            cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, "PYTHONHASHSEED": "5", "TMPDIR": folder, "PYTHONPATH": str(keep / "suites"),
                 "FROSTFORK_IN_PLACE": how},
        )  # fmt: skip
        try:
            ended = process.wait(timeout)
        except subprocess.TimeoutExpired:
            ended = None
        # The tests' own children too, which a crash would leave behind: all of a session that is ours.
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
    return read(results, ended, timeout, time.monotonic() - start)


def read(results: Path, ended: int | None, timeout: float, seconds: float) -> Run:
    """What a run wrote, up to where it ended."""
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    details, ready, running, finished = {}, {}, "", False
    for line in results.read_bytes().splitlines() if results.exists() else []:
        entry = json.loads(line)
        running = entry.get("running", running)
        finished = finished or "finished" in entry
        ready = entry.get("ready", ready)
        if "id" in entry:
            outcomes[entry["id"]][entry["outcome"]] += 1
            details[entry["id"]] = entry["detail"]
    last = f" in {running}" if running and not finished else " after its tests" if finished else ""
    if ended is None:
        said = f"no end within {timeout:.0f} s{last}"
    elif ended:
        said = f"{'signal' if ended < 0 else 'exit status'} {abs(ended)}{last}"
    else:
        said = "" if finished else "no results"
    return Run(said, dict(outcomes), details, ready, seconds)


class Comparison:
    """What was found out over all modules, by kind; `unexplained` decides the exit status."""

    def __init__(self, how: str, timeout: float, keep: Path) -> None:
        self._how, self._timeout, self._keep = how, timeout, keep
        self.tests = self.modules = 0
        self.ready: dict[str, dict[str, object]] = {}
        self.explained: list[str] = []
        self.flaky: list[str] = []
        self.unsteady: list[str] = []
        self.unexplained: list[str] = []

    def _run(self, how: str, name: str) -> Run:
        return run(how, name, self._timeout, self._keep)

    def add(self, name: str, plain: Run, ours: Run) -> str:
        """Compare one module; returns what to print of it."""
        self.modules += 1
        self.tests += sum(sum(seen.values()) for seen in plain.outcomes.values())
        self.ready = self.ready or ours.ready
        before = len(self.unexplained)
        if self._how == "pool" and not plain.outcomes and not plain.ended:
            return f"{name}: no tests with processes"
        if not plain.outcomes:
            self.unexplained.append(f"{name}: nothing ran: {plain.ended or 'it has no tests'}")
        elif not ours.ready and plain.of(name) != "skipped":
            self.unexplained.append(f"{name}: {self._how} was not made ready: {ours.ended}")
        elif failed := [
            f"{step}: {done['reason']}" for step, done in ours.ready.items() if done["status"] == "failed"
        ]:
            self.unexplained.append(f"{name}: {self._how} failed: {', '.join(failed)}")
        elif differing(plain, ours) or plain.ended or ours.ended:
            self._look_again(name, plain, ours)
        bad = len(self.unexplained) - before
        return f"{name}: {len(plain.outcomes)} tests, {plain.seconds + ours.seconds:.0f} s" + (
            f", {bad} DIFFER" if bad else ""
        )

    def _reason(self, test: str, ours: Run) -> str | None:
        return reason(self._how, test, ours.of(test), ours.details.get(test, ""))

    def _look_again(self, name: str, plain: Run, ours: Run) -> None:
        unclear = [
            test for test in differing(plain, ours) if self._reason(test, ours) is None
        ] or plain.ended or ours.ended  # fmt: skip
        again, ours_again = (
            (self._run("plain", name), self._run(self._how, name)) if unclear else (plain, ours)
        )
        if ours.ended and plain.ended == ours.ended:
            self.flaky.append(f"{name}: both processes ended with {plain.ended}")
        elif ours.ended:
            self.unexplained.append(f"{name}: {ours.ended} with {self._how} (plain: {plain.ended or 'well'})")
        elif plain.ended:
            self.flaky.append(f"{name}: {plain.ended} in the plain process")
        for test in differing(plain, ours):
            line = f"{test}: plain {plain.of(test)}, {self._how} {ours.of(test)}"
            why = self._reason(test, ours)
            if why is not None:
                self.explained.append(f"{line}: {why}")
            elif again.of(test) != plain.of(test):
                self.flaky.append(f"{line}, plain again {again.of(test)}")
            elif ours_again.of(test) == plain.of(test):
                self.unsteady.append(f"{line}, {self._how} again {ours_again.of(test)}")
            elif not ours.ended or ours.of(test) != "absent":
                detail = ours.details.get(test, "").strip()
                self.unexplained.append(
                    line + "".join(f"\n      {part[:160]}" for part in detail.splitlines()[-12:])
                )

    def summary(self) -> str:
        """All of it, the worst last."""
        lines = [f"{self._how} {name}: {step['status']}, {step['count']} {step['unit']} {step['reason']}".rstrip()
                 for name, step in self.ready.items()]  # fmt: skip
        for title in ("explained", "flaky", "unsteady", "unexplained"):
            lines += [f"{title}: {entry}" for entry in getattr(self, title)]
        lines.append(
            f"{self.modules} modules, {self.tests} outcomes: {len(self.unexplained)} unexplained differences, "
            f"{len(self.explained)} explained, {len(self.unsteady)} unsteady, {len(self.flaky)} flaky"
        )
        return "\n".join(lines)


def differing(one: Run, other: Run) -> list[str]:
    tests = dict.fromkeys([*one.outcomes, *other.outcomes])
    return [test for test in tests if one.outcomes.get(test) != other.outcomes.get(test)]


@contextlib.contextmanager
def in_place() -> Iterator[None]:
    """Let each interpreter of this venv do first what $FROSTFORK_IN_PLACE says: the tests start some with -I."""
    if sys.prefix == sys.base_prefix:
        sys.exit("This is to run in a venv, since it puts a .pth file there.")
    pth = Path(sysconfig.get_path("purelib"), f"frostfork-in-place-{os.getpid()}.pth")
    pth.write_text(
        f"{PLACES}\nimport os; 'FROSTFORK_IN_PLACE' in os.environ and __import__('frostfork_in_place')\n"
    )
    try:
        yield
    finally:
        pth.unlink()


def compare(how: str, modules: list[str], jobs: int, timeout: float, keep: Path) -> bool:
    """Run and print it all; whether every difference is explained."""
    keep.mkdir(parents=True, exist_ok=True)
    write_suites(keep / "suites")
    chosen = list(names(modules or MODULES[how]))
    comparison = Comparison(how, timeout, keep)
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        pairs = pool.map(
            lambda name: (name, *(run(each, name, timeout, keep) for each in ("plain", how))), chosen
        )
        done = []
        for name, plain, ours in pairs:
            same = not differing(plain, ours) and not plain.ended and not ours.ended
            done.append((name, plain, ours))
            print(f"{how} {len(done)}/{len(chosen)} {name}: {len(plain.outcomes)} tests, "
                  f"{plain.seconds:.1f} + {ours.seconds:.1f} s{'' if same else ', to be looked at'}",
                  flush=True)  # fmt: skip
    # Second runs have the machine to themselves.
    for name, plain, ours in done:
        said = comparison.add(name, plain, ours)
        if said.endswith("DIFFER"):
            print(said, flush=True)
    print(f"Python {sys.version.split()[0]}, {how}")
    print(comparison.summary(), flush=True)
    return not comparison.unexplained


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "modules", nargs="*", help="as in `python -m test`, with one --ours (default: a list of ours)"
    )
    parser.add_argument("--ours", action="append", choices=MODULES, help="what to compare (default: all)")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=300, help="seconds for one module")
    parser.add_argument("--keep", type=Path, help="keep results and output of each process in this folder")
    options = parser.parse_args()
    try:
        import test.support  # noqa: F401 - names() looks into the package
    except ImportError:
        print(f"This Python ({sys.executable}) has no test package; Debian has it in libpython3-testsuite.")
        return 2
    wanted = options.ours or (["warmed"] if options.modules else list(MODULES))
    with tempfile.TemporaryDirectory() as scratch, in_place():
        keep = (options.keep or Path(scratch)).absolute()
        same = [compare(how, options.modules, options.jobs, options.timeout, keep) for how in wanted]
    return 0 if all(same) else 1


if __name__ == "__main__":
    sys.exit(main())
