# SPDX-License-Identifier: Apache-2.0
"""What a zygote does so that workers begin cheaply: nobody is to notice it, but by counting pages."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any

import pytest

from tests.integration.fresh import run_fresh

PRELUDE = """
import atexit, gc, json, logging, logging.handlers, os, random, signal, sys, threading, time, weakref
from frostfork import ForkPool, LearningTemplate, Template, Zygote

class Resource:
    pass

class Busy(Template):
    # A template that has all that a rehearsal must leave alone.

    def begin(self):
        self.died = []
        self.resource = Resource()
        self.finalizer = weakref.finalize(self.resource, self.died.append, "closed")
        self.local = lambda: None
        weakref.finalize(self.local, self.died.append, "dropped")
        self.handler = logging.handlers.MemoryHandler(100)
        logging.getLogger().addHandler(self.handler)
        logging.getLogger("test").warning("kept")
        signal.signal(signal.SIGUSR1, self.answer)
        self.pipe = os.pipe()
        random.seed(5)
        atexit.register(self.died.append, "exit")
        self.before = self.state()

    def answer(self, number, frame):
        pass

    def state(self):
        numpy = sys.modules.get("numpy")
        return [
            len(self.handler.buffer), signal.getsignal(signal.SIGUSR1) == self.answer, random.getstate()[1][:5],
            [os.fstat(fd).st_ino for fd in self.pipe], threading.current_thread() is threading.main_thread(),
            [thread.name for thread in threading.enumerate()], self.finalizer.alive, gc.isenabled(),
            None if numpy is None else numpy.random.get_state()[1][:5].tolist(),
        ]

    def states(self):
        return self.before, self.state()

    def let_go(self):
        self.resource = self.local = None
        return self.died

    def before_fork(self, name):
        self.forked = time.monotonic()

    def idle(self):
        self.waited = time.monotonic() - getattr(self, "forked", -1.0)

    def patience(self):
        return self.waited

def nothing():
    pass

def hold(fds):
    os.read(fds[0], 1)
"""


def run(body: str) -> Any:
    return run_fresh(PRELUDE + body)


def test_a_rehearsal_leaves_no_trace_in_the_zygote() -> None:
    before, after, died = run(
        """
if sys.argv[1:]:
    import numpy
with Zygote(Busy()) as zygote:
    zygote.fork(nothing).wait(30)
    states = zygote.call("states")
    print(json.dumps([*states, zygote.call("let_go")]))
"""
    )
    assert after == before
    assert sorted(died) == ["closed", "dropped"], (
        "finalizers of the zygote's own objects work on, and its exit functions never run"
    )


def test_numpys_numbers_in_the_zygote_are_what_the_template_seeded() -> None:
    if find_spec("numpy") is None:  # not imported here: it would leave threads in the tests' process
        pytest.skip("needs numpy (locks/test.txt has it)")
    before, after = run(
        """
class Seeded(Busy):
    def begin(self):
        import numpy
        numpy.random.seed(7)
        super().begin()

with Zygote(Seeded()) as zygote:
    zygote.fork(nothing).wait(30)
    print(json.dumps(zygote.call("states")))
"""
    )
    assert before[-1] is not None
    assert after[-1] == before[-1]


def test_the_template_is_not_idle_in_a_burst_of_forks() -> None:
    waited = run(
        """
with Zygote(Busy()) as zygote:
    reader, writer = os.pipe()
    workers = [zygote.fork(hold, fds=[reader]) for _ in range(5)]
    time.sleep(0.3)   # the zygote has nothing to do, and says by itself how long it has waited
    print(json.dumps(zygote.call("patience")))
    os.close(writer)
"""
    )
    assert waited >= 0.05


def test_workers_show_the_code_of_their_own_beginning() -> None:
    names = run(
        """
class Told(LearningTemplate):
    def names(self):
        return sorted(name for _, _, name in self._preloader.ledger.hot_code)

with Zygote(Told()) as zygote:
    for _ in range(4):  # the first shows that nothing is left to import
        zygote.fork(nothing).wait(30)
    end = time.monotonic() + 30
    while not (found := zygote.call("names")) and time.monotonic() < end:
        time.sleep(0.02)
    print(json.dumps(found))
"""
    )
    assert {"become_worker", "disown", "nothing"} <= set(names) or sys.version_info < (3, 11)
    assert {"become_worker", "disown", "_after_fork"} <= {name.rpartition(".")[2] for name in names}


SMALL = """
def private(pid):
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return sum(int(line.split()[1]) << 10 for line in file if line.startswith("Private_"))

def idle(pool, generation):
    end = time.monotonic() + 30
    while True:
        workers = pool.stats().workers
        if len(workers) == 4 and all(each.generation == generation and each.state == "idle" for each in workers):
            return [private(each.pid) for each in workers]
        assert time.monotonic() < end, workers
        time.sleep(0.02)

LOADED = ["asyncio", "json", "sqlite3", "xml.dom.minidom", "unittest.mock", "email.message", "concurrent.futures"]
with ForkPool(4, template=LearningTemplate(LOADED)) as pool:
    for generation in (2, 3, 4):
        for _ in range(8):
            pool.submit(json.dumps, [1, 2]).result(30)
        pool.refork()
        found = idle(pool, generation)
    print(json.dumps(sorted(found)))
"""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="immortal objects came with Python 3.12")
def test_an_idle_worker_of_a_learning_pool_has_less_than_a_megabyte() -> None:
    found = run(SMALL)
    assert found[1] < 1_000_000, found  # two have more: they note code, and one of them was the first
