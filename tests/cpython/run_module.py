# SPDX-License-Identifier: Apache-2.0
"""Runs one module of CPython's own tests in this process and writes each test's outcome.

    python run_module.py plain|warmed|fork|zygote|exec|pool MODULE RESULTS

warmed: warms this process first. What else is ours has been put into its place when the interpreter started
(places/frostfork_in_place.py).

RESULTS gets one JSON object a line, as it happens, so that a crash leaves what was known before it. Resources that
`python -m test` leaves off (network, audio, much time) are off here too.
"""

from __future__ import annotations

import faulthandler
import gc
import importlib
import importlib.util
import json
import os
import random
import re
import sys
import types
import unittest

# What a parent that forks workers has loaded anyway: the more is warmed, the more can go wrong.
COMMON = [
    "argparse",
    "ast",
    "asyncio",
    "base64",
    "bisect",
    "calendar",
    "codecs",
    "collections",
    "concurrent.futures",
    "configparser",
    "contextlib",
    "copy",
    "csv",
    "ctypes",
    "dataclasses",
    "datetime",
    "decimal",
    "difflib",
    "dis",
    "email.message",
    "enum",
    "fractions",
    "functools",
    "getpass",
    "glob",
    "gzip",
    "hashlib",
    "heapq",
    "hmac",
    "html",
    "http.client",
    "importlib.metadata",
    "inspect",
    "io",
    "itertools",
    "json",
    "locale",
    "logging.config",
    "mimetypes",
    "multiprocessing.pool",
    "operator",
    "pathlib",
    "pickle",
    "pkgutil",
    "platform",
    "pprint",
    "queue",
    "random",
    "re",
    "secrets",
    "selectors",
    "shutil",
    "signal",
    "socket",
    "sqlite3",
    "ssl",
    "statistics",
    "string",
    "struct",
    "subprocess",
    "tempfile",
    "textwrap",
    "threading",
    "time",
    "traceback",
    "types",
    "typing",
    "unittest.mock",
    "urllib.request",
    "uuid",
    "warnings",
    "weakref",
    "xml.etree.ElementTree",
    "zipfile",
    "zoneinfo",
]

# Tests that wait for ever, without a limit of their own, for a pool to be broken by a task that is killed.
ENDLESS = ("test_broken_process_pool_traceback",)

# An address, a temporary name: what may differ in a subtest's name from run to run.
PASSING = re.compile(
    r"0x[0-9a-fA-F]{6,}|id=.\d{9,}|/tmp/[\w./-]+|@test_\d+|(?<![\w.])(?:tmp|test_python_)\w+"
)


class Recorder(unittest.TestResult):
    """Writes each outcome at once. A forked child that runs on into unittest writes nothing."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._owner = os.getpid()
        self._unhappy = False

    def write(self, **fields: object) -> None:
        if os.getpid() == self._owner:
            os.write(self._fd, json.dumps(fields).encode() + b"\n")

    def _add(self, test: object, outcome: str, detail: str = "") -> None:
        name = test.id() if isinstance(test, unittest.TestCase) else str(test)
        self.write(id=PASSING.sub("...", name), outcome=outcome, detail=detail[-4000:])

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self.write(running=test.id())

    def addSuccess(self, test: unittest.TestCase) -> None:
        self._add(test, "ok")

    def addFailure(self, test, err) -> None:
        self._add(test, "FAIL", self._exc_info_to_string(err, test))

    def addError(self, test, err) -> None:
        # _ErrorHolder, which stands for a class or module whose set-up failed, is no TestCase.
        self._add(test, "ERROR", self._exc_info_to_string(err, test))

    def addSkip(self, test, reason) -> None:
        self._add(test, "skipped", reason)

    def addExpectedFailure(self, test, err) -> None:
        self._add(test, "expected failure")

    def addUnexpectedSuccess(self, test) -> None:
        self._add(test, "unexpected success")

    def addSubTest(self, test, subtest, err) -> None:
        if err is None:
            self._add(subtest, "ok")
        elif issubclass(err[0], test.failureException):
            self._add(subtest, "FAIL", self._exc_info_to_string(err, test))
        else:
            self._add(subtest, "ERROR", self._exc_info_to_string(err, test))

    def addDuration(self, test, elapsed) -> None:
        """Not recorded: it differs from run to run."""


def warm() -> dict[str, object]:
    """Load what a parent has loaded, warm this process, and say what was done."""
    for name in COMMON:
        importlib.import_module(name)
    import frostfork

    ledger = frostfork.Ledger()
    # Far more than children ever run: all code of all functions, and the code within it.
    ledger.hot_code.update(dict.fromkeys(all_code(), 1))
    report = frostfork.warmup(ledger)
    return {
        name: {"status": step.status, "reason": step.reason, "count": step.count, "unit": step.unit}
        for name, step in report.steps.items()
    }


def replaced(how: str) -> dict[str, object]:
    """Say what is in whose place; nothing is, if the interpreter did not start with ours."""
    import concurrent.futures
    import multiprocessing

    place, thing = {
        "fork": ("fork", multiprocessing.get_context("fork")),
        "zygote": ("forkserver", multiprocessing.get_context("forkserver")),
        "exec": ("forkserver", multiprocessing.get_context("forkserver")),
        "pool": ("ProcessPoolExecutor", concurrent.futures.ProcessPoolExecutor),
    }[how]
    ours = [each.__module__ for each in getattr(thing, "__mro__", type(thing).__mro__)]
    if not any(module.startswith("frostfork.") for module in ours):
        raise RuntimeError(f"{place} is not ours: {thing}")
    return {place: {"status": "replaced", "reason": "", "count": 1, "unit": "place"}}


def processes_by_fork(suite: unittest.TestSuite, left_out: tuple[str, ...]) -> unittest.TestSuite:
    """Of the cases that come once for threads and once for each start method: those for fork."""
    kept = unittest.TestSuite()
    for case in flat(suite):
        name = case.id().rpartition(".")[2]
        if re.search(r"ProcessPoolFork(?!server)", type(case).__name__) and name not in left_out:
            kept.addTest(case)
    return kept


def flat(suite: unittest.TestSuite) -> list[unittest.TestCase]:
    return [
        case for part in suite for case in (flat(part) if isinstance(part, unittest.TestSuite) else [part])
    ]


def all_code() -> list[tuple[str, int, str]]:
    """The names that a ledger has for the code of every function here."""
    found = [thing.__code__ for thing in gc.get_objects() if type(thing) is types.FunctionType]
    for code in found:
        found += [part for part in code.co_consts if type(part) is types.CodeType]
    return [
        (code.co_filename, code.co_firstlineno, getattr(code, "co_qualname", code.co_name)) for code in found
    ]


def load(name: str) -> types.ModuleType:
    """The module of tests. 3.11 and 3.12 may be installed without this one, which consists of another one's tests."""
    if name != "test.test_multiprocessing_fork" or importlib.util.find_spec(name):
        module = importlib.import_module(name)
    else:
        module = sys.modules[name] = types.ModuleType(name)
        shared = importlib.import_module("test._test_multiprocessing")
        shared.install_tests_in_module_dict(module.__dict__, "fork")
    pool = getattr(module, "WithThreadsTestPool", None)
    if pool is not None and sys.version_info < (3, 13):
        # It waits for five minutes if a thread begins its task early enough; 3.13 made that one second.
        pool.test_terminate = None
    return module


def main() -> int:
    how, name, path = sys.argv[1:]
    sys.path.pop(0)  # this file's folder
    faulthandler.enable()
    from test import support

    support.use_resources = []
    support.verbose = 0
    random.seed(3)
    recorder = Recorder(path)
    try:
        module = load(name)
    except unittest.SkipTest as reason:
        recorder.write(id=name, outcome="skipped", detail=str(reason))
        recorder.write(finished=True)
        return 0
    suite = unittest.defaultTestLoader.loadTestsFromModule(module)
    if how == "warmed":
        recorder.write(ready=warm())
    elif how != "plain":
        recorder.write(ready=replaced(how))
    if how == "pool" or name.startswith("test.test_concurrent_futures"):
        suite = processes_by_fork(suite, ENDLESS if how == "pool" else ())
    # Not unittest.main: like libregrtest's, this run leaves warning filters and signal handlers as they are.
    suite.run(recorder)
    recorder.write(finished=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
