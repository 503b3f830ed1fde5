# SPDX-License-Identifier: Apache-2.0
"""The tests of CPython whose outcome differs with what is ours for a reason that is no fault. As narrow as can be."""

from __future__ import annotations

import fnmatch
from typing import NamedTuple


class Allowed(NamedTuple):
    """Tests whose id matches `tests` (shell wildcards) may end as `ours`, with `says` in what they say."""

    tests: str
    ours: str
    reason: str
    says: str = ""


_MOVED = "compares a code object with one that the module took out of its function before the code moved"
_CONSTANT = "expects the instruction for mortal constants; the constant is immortal"
_UNTRACKED = "3.14's collector lets go of immortal objects, so gc.is_tracked() denies them"

WARMED: tuple[Allowed, ...] = (
    Allowed("test.test_dis.InstructionTests.test_outer", "FAIL", _MOVED),
    Allowed("test.test_dis.InstructionTests.test_nested", "FAIL", _MOVED),
    Allowed("test.test_dis.BytecodeTests.test_explicit_first_line", "FAIL", _MOVED),
    Allowed("test.test_gc.GCTests.test_is_tracked", "FAIL", _UNTRACKED),
    Allowed("test.test_gc.GCTests.test_get_referents_on_capsule", "FAIL", _UNTRACKED),
    Allowed("test.test_pickle.HeapTypesTests.test_have_gc (tp=<class '_pickle.*'>)", "FAIL", _UNTRACKED),
    # The test around those subtests, which then has no outcome of its own.
    Allowed("test.test_pickle.HeapTypesTests.test_have_gc", "absent", _UNTRACKED),
    Allowed("test.test_opcache.TestSpecializer.test_load_const", "FAIL", _CONSTANT),
    Allowed("test.test_dis.DisTests.test_loop_quicken", "FAIL", _CONSTANT),
    Allowed("test.test_dis.DisWithFileTests.test_loop_quicken", "FAIL", _CONSTANT),
)


_LISTED = "expects a list of all start methods; ours is one more"
_NOT_AGAIN = (
    "expects a main module without a guard to fail when workers import it; a forked zygote has it already"
)
_PRELOADED = "expects the main module to be run once more, to preload it; a forked zygote has it already"
_AUTHKEY = (
    "looks at the key for the forkserver's socket; a zygote's is a pair that nobody else can connect to"
)

FORK: tuple[Allowed, ...] = (
    Allowed("mp_fork_misc.TestStartMethod.test_get_all", "FAIL", _LISTED),
    Allowed("mp_fork_misc.TestStartMethod.test_get_all_start_methods", "FAIL", _LISTED, "frostfork"),
)
EXEC: tuple[Allowed, ...] = (
    Allowed("mp_forkserver_misc.TestStartMethod.test_get_all", "FAIL", _LISTED),
    Allowed("mp_forkserver_misc.TestStartMethod.test_get_all_start_methods", "FAIL", _LISTED, "frostfork"),
    Allowed(
        "mp_forkserver_processes.*.test_forkserver_auth_is_enabled", "FAIL", _AUTHKEY, "None is not true"
    ),
    Allowed("mp_forkserver_processes.*.test_forkserver_without_auth_fails", "ERROR", _AUTHKEY, "NoneType"),
)
ZYGOTE: tuple[Allowed, ...] = (
    *EXEC,
    Allowed("mp_forkserver_misc.TestNoForkBomb.test_noforkbomb", "FAIL", _NOT_AGAIN),
    Allowed("mp_forkserver_misc.MiscTestCase.test_preload_main*", "FAIL", _PRELOADED, "Lists differ"),
    Allowed(
        "mp_forkserver_processes.*.test_std_streams_flushed_after_preload", "FAIL", _PRELOADED, "__mp_main__"
    ),
)

_ONE_TASK = "expects the whole executor to be broken; ours fails the one task, with what ended its worker, and goes on"
_ERROR = "expects the whole executor to be broken; ours fails the one task, with what was raised"
_RECYCLES = "expects a refusal to replace workers with the start method fork; ours can"
_NOT_BEGUN = (
    "expects a task to have begun, or to be on its way, at once; ours cancels all that have not begun"
)
_NOT_LOGGED = (
    "expects a worker to log how its initializer failed; ours has that in the exception, and logs nothing"
)
_CONTEXT = "asks for the context of an executor; ours has none"
_METHODS = "expects the methods of its process objects to be called; ours has other ones"
_AT_THE_START = "expects threads to be missed at the first task; ours misses them when it is made"

POOL: tuple[Allowed, ...] = tuple(
    Allowed(f"test.test_concurrent_futures*.ProcessPoolFork{tests}", outcome, why, says)
    for tests, outcome, why, says in (
        ("ExecutorDeadlockTest.test_crash_*", "ERROR", _ONE_TASK, "WorkerDied"),
        ("ExecutorDeadlockTest.test_shutdown_deadlock", "ERROR", _ONE_TASK, "WorkerDied"),
        ("ExecutorDeadlockTest.test_error_*", "ERROR", _ERROR, "Err"),
        ("ExecutorDeadlockTest.test_exit_*", "ERROR", _ERROR, "SystemExit: 1"),
        ("ProcessPoolExecutorTest.test_killed_child", "FAIL", _ONE_TASK, "BrokenProcessPool not raised"),
        ("ProcessPoolExecutorTest.test_killed_child", "ERROR", _ONE_TASK, "WorkerDied"),
        ("ProcessPoolExecutorTest.test_broken_process_pool_traceback", "absent", _ONE_TASK, ""),
        (
            "ProcessPoolExecutorTest.test_force_shutdown_workers_dead_workers*",
            "ERROR",
            _ONE_TASK,
            "WorkerDied",
        ),
        ("ProcessPoolExecutorTest.test_force_shutdown_workers*", "FAIL", _METHODS, "to have been called"),
        ("ProcessPoolExecutorTest.test_force_shutdown_workers", "absent", _METHODS, ""),
        ("ProcessPoolExecutorTest.test_force_shutdown_workers_dead_workers", "absent", _ONE_TASK, ""),
        ("ProcessPoolExecutorTest.test_max_tasks_per_child", "FAIL", _RECYCLES, "ValueError not raised"),
        ("ProcessPoolExecutorTest.test_max_tasks_per_child_defaults_*", "ERROR", _CONTEXT, "_mp_context"),
        ("ProcessPoolExecutorTest.test_python_finalization_error", "ERROR", _AT_THE_START, "new thread"),
        ("ProcessPoolShutdownTest.test_cancel_futures", "FAIL", _NOT_BEGUN, "0 not greater than 0"),
        ("FailingInitializerTest.test_initializer", "FAIL", _NOT_LOGGED, "False is not true : []"),
    )
)

BY_KIND: dict[str, tuple[Allowed, ...]] = {
    "warmed": WARMED,
    "fork": FORK,
    "zygote": ZYGOTE,
    "exec": EXEC,
    "pool": POOL,
}


def reason(how: str, test: str, ours: str, detail: str = "") -> str | None:
    """Why this test may end so with what is ours, or None."""
    for entry in BY_KIND[how]:
        if entry.ours == ours and entry.says in detail and fnmatch.fnmatchcase(test, entry.tests):
            return entry.reason
    return None
