# SPDX-License-Identifier: Apache-2.0
"""warmup(): what it does to a process, seen from its children; what it must not do."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import frostfork
from frostfork import ConfigurationError, Ledger, UnsupportedStepError, warmup
from tests.integration.fresh import run_fresh

immortals = pytest.mark.skipif(sys.version_info < (3, 12), reason="immortal objects came with Python 3.12")


def test_a_step_that_does_not_exist_is_named() -> None:
    with pytest.raises(ConfigurationError, match="'thaw' is no step"):
        warmup(steps=["freeze", "thaw"])


@pytest.mark.parametrize("wrong", ["", [], {}, 0, False, "ledger.json"])
def test_a_ledger_is_a_ledger(wrong: object) -> None:
    with pytest.raises(TypeError, match="ledger must be of type Ledger or None"):
        warmup(wrong, steps=[])
    assert warmup(Ledger(), steps=[]).steps == {}


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="this Python has immortal objects")
def test_what_cannot_be_done_is_reported_and_raised_when_strict() -> None:
    step = warmup(steps=["immortalize"]).steps["immortalize"]
    assert step.status == "unsupported"
    assert "3.12" in step.reason
    with pytest.raises(UnsupportedStepError, match=r"3\.12"):
        warmup(steps=["immortalize"], strict=True)


def test_steps_run_in_their_order_and_are_reported() -> None:
    report = run_fresh(
        """
        import json, frostfork
        report = frostfork.warmup(steps=["freeze", "compact_code", "preload"])
        print(json.dumps([list(report.steps), [s.status for s in report.steps.values()], report.seconds]))
        """
    )
    assert report[0] == ["preload", "compact_code", "freeze"]
    assert report[1] == ["skipped", "skipped", "done"]
    assert report[2] > 0


@immortals
def test_a_child_that_only_looks_copies_next_to_nothing() -> None:
    script = """
        import gc, json, os, sys
        import frostfork
        from tests.integration.forking import run_child
        data = [[str(i), (i, i + 0.5), {"key": str(i)}] for i in range(50_000)]
        frostfork.warmup(steps=STEPS)
        def look():
            for text, pair, table in data:
                text == pair[0]; table["key"] is text; hash(text)
            copies = frostfork.child_baseline().compare()
            return copies.unshared
        print(json.dumps(run_child(look, lambda: frostfork.fork(baseline=True))))
    """
    frozen = run_fresh(script.replace("STEPS", '["freeze"]'))
    immortal = run_fresh(script.replace("STEPS", '["immortalize", "freeze"]'))
    assert frozen > 3000
    assert immortal < frozen / 20


@immortals
def test_what_owns_a_resource_goes_on_dying() -> None:
    died = run_fresh(
        """
        import gc, io, json, os, socket, sys, tempfile, threading, types, weakref
        import frostfork
        holder = types.ModuleType("holder")
        sys.modules["holder"] = holder
        log = []
        class Finalized:
            def __del__(self): log.append("finalized")
        class Closes:
            def close(self): pass
            def __init__(self): self.inner = Inner()
        class Inner: pass
        class Weak: pass
        def generator():
            try: yield 1
            finally: log.append("generator")
        async def coroutine(): pass
        holder.finalized = [Finalized()]
        holder.closes = Closes()
        holder.weak = {"deep": (Weak(),)}
        weak = weakref.ref(holder.weak["deep"][0], lambda ref: log.append("weak"))
        holder.file = tempfile.TemporaryFile()
        holder.socket = socket.socket()
        holder.lock = threading.Lock()
        holder.generator = generator()
        next(holder.generator)
        holder.coroutine = coroutine()
        try: 1 / 0
        except ZeroDivisionError as error: holder.error = error
        holder.cell = (lambda x: lambda: x)(Finalized())
        fds = [holder.file.fileno(), holder.socket.fileno()]
        report = frostfork.warmup(steps=["immortalize", "freeze"])
        counts = {name: sys.getrefcount(value) for name, value in vars(holder).items()}
        holder.coroutine.close()
        holder.finalized.clear()
        inner = sys.getrefcount(holder.closes.inner)
        del holder.weak["deep"], holder.file, holder.socket, holder.generator
        del holder.cell.__closure__[0].cell_contents
        def is_open(fd):
            try: os.fstat(fd)
            except OSError: return False
            return True
        print(json.dumps([log, [is_open(fd) for fd in fds], counts, inner, report.steps["immortalize"].details]))
        """.replace("-W error", "")
    )
    log, still_open, counts, inner, details = died
    assert sorted(log) == ["finalized", "finalized", "generator"]  # the weak one sits in a tuple that stays
    assert still_open == [False, False]
    for name in ("closes", "file", "socket", "lock", "generator", "coroutine", "error"):
        assert counts[name] < 100, name
    assert inner < 100, "what only a closing object holds dies with it"
    assert counts["cell"] > 1_000_000
    assert details["left_alone"] >= 8


@immortals
def test_a_weakly_referenced_instance_dies_when_its_last_owner_lets_go() -> None:
    assert run_fresh(
        """
        import json, sys, types, weakref, frostfork
        class Weak: pass
        holder = types.ModuleType("holder"); sys.modules["holder"] = holder
        holder.weak, holder.plain = Weak(), Weak()
        cache = weakref.WeakValueDictionary(one=holder.weak)
        frostfork.warmup(steps=["immortalize"])
        plain = sys.getrefcount(holder.plain)
        del holder.weak
        print(json.dumps([list(cache), plain > 1_000_000]))
        """
    ) == [[], True]


@immortals
def test_the_second_time_costs_what_is_new() -> None:
    first, second, third, new = run_fresh(
        """
        import json, sys, frostfork
        import asyncio, unittest.mock, email.mime.text, http.server
        one = frostfork.warmup(steps=["immortalize", "freeze"]).steps["immortalize"]
        two = frostfork.warmup(steps=["immortalize", "freeze"]).steps["immortalize"]
        import xml.dom.minidom
        three = frostfork.warmup(steps=["immortalize", "freeze"]).steps["immortalize"]
        new = sys.getrefcount(xml.dom.minidom.Element)
        print(json.dumps([one.count, two.count, three.count, new]))
        """
    )
    assert first > 30_000
    assert second < 200
    assert 500 < third < first / 5
    assert new > 1_000_000


HOT = '''
import functools
def plain(a, b=2, *, c=3):
    """doc"""
    return helper(a) + b + c
def helper(x): return x * 2
def cold(): return "cold"
def make():
    def inner(y):
        return y + 1
    return inner
first = make()
def decorate(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)
    return wrapper
@decorate
def decorated(x): return x - 1
class Thing:
    def method(self): return super().__repr__() and 7
    @property
    def value(self): return self.method()
    @staticmethod
    def static(): return "static"
    @classmethod
    def of_class(cls): return cls.__name__
    def steps(self):
        yield self.method()
        yield from range(2)
async def asynchronous(): return 5
def fails():
    raise KeyError("here")
'''

USE = """
def use():
    import asyncio
    thing = ff_hot.Thing()
    try: ff_hot.fails()
    except KeyError as error: line = error.__traceback__.tb_next.tb_lineno
    return [ff_hot.plain(1), ff_hot.first(1), ff_hot.make()(2), ff_hot.decorated(3), thing.value,
            thing.static(), thing.of_class(), list(thing.steps()), asyncio.run(ff_hot.asynchronous()), line]
"""

LEARN = """
import gc, inspect, json, os, pickle, sys, traceback
import frostfork, ff_hot
from frostfork.steps import compact_code
from tests.integration.forking import run_child
ledger = frostfork.Ledger()
def learn():
    journal = frostfork.Journal()
    def body():
        with frostfork.observe(journal, code=True): return use()
    answer = run_child(body, frostfork.fork)
    seen = frostfork.Observation.from_journal(journal)
    journal.close()
    ledger.record(seen)
    return answer
"""


@pytest.fixture
def hot(tmp_path: Path) -> Path:
    (tmp_path / "ff_hot.py").write_text(HOT)
    return tmp_path


def test_code_that_children_ran_is_moved_and_works_as_before(hot: Path) -> None:
    script = (
        LEARN
        + USE
        + """
before = learn()
old = {name: getattr(ff_hot, name).__code__ for name in ("plain", "helper", "cold", "first", "make", "fails")}
closure = ff_hot.make()
step = frostfork.warmup(ledger, steps=["compact_code"]).steps["compact_code"]
moved = {name: getattr(ff_hot, name).__code__ is not code for name, code in old.items()}
again = frostfork.warmup(ledger, steps=["compact_code"]).steps["compact_code"]
result = {
    "before": before, "after": use(), "child": learn(), "moved": moved, "count": step.count, "again": again.status,
    "source": inspect.getsource(ff_hot.plain), "doc": ff_hot.plain.__doc__, "bytes": step.bytes,
    "pickled": pickle.loads(pickle.dumps(ff_hot.Thing.method)) is ff_hot.Thing.method,
    "wrapped": ff_hot.decorated.__wrapped__(9), "signature": str(inspect.signature(ff_hot.plain)),
    "one_code": ff_hot.first.__code__ is closure.__code__ is ff_hot.make().__code__,
    "equal": all(getattr(ff_hot, name).__code__ == code for name, code in old.items()),
}
print(json.dumps(result))
"""
    )
    found = run_fresh(f"sys.path.insert(0, {str(hot)!r})\n" + script)
    assert found["before"] == found["after"] == found["child"]
    assert found["moved"] == {
        "plain": True,
        "helper": True,
        "cold": False,
        "first": True,
        "make": True,
        "fails": True,
    }
    assert found["again"] == "skipped"
    assert found["count"] >= 12
    assert "return helper(a)" in found["source"]
    assert found["doc"] == "doc"
    assert found["bytes"] > 1000
    assert found["pickled"]
    assert found["wrapped"] == 8
    assert found["signature"] == "(a, b=2, *, c=3)"
    assert found["one_code"]
    assert found["equal"]


def test_code_stays_while_a_tool_watches_it(hot: Path) -> None:
    script = (
        LEARN
        + USE
        + """
learn()
sys.settrace(lambda *event: None)
step = frostfork.warmup(ledger, steps=["compact_code"]).steps["compact_code"]
sys.settrace(None)
print(json.dumps([step.status, step.reason]))
"""
    )
    status, reason = run_fresh(f"sys.path.insert(0, {str(hot)!r})\n" + script)
    assert (status, reason) == ("skipped", "a trace function watches code")


def test_code_to_which_somebody_holds_a_weak_reference_stays(hot: Path) -> None:
    script = (
        LEARN
        + USE
        + """
import weakref
learn()
notes = weakref.WeakKeyDictionary({ff_hot.plain.__code__: "note"})
frostfork.warmup(ledger, steps=["compact_code"])
print(json.dumps([notes[ff_hot.plain.__code__]]))
"""
    )
    assert run_fresh(f"sys.path.insert(0, {str(hot)!r})\n" + script) == ["note"]


def test_hot_code_travels_as_json(hot: Path) -> None:
    seen = frostfork.Observation(hot_code=[("/a/b.py", 7, "Class.<locals>.name")])
    assert frostfork.Observation.from_json(seen.to_json()).hot_code == seen.hot_code


def test_observing_code_gives_way_to_another_profiler() -> None:
    assert run_fresh(
        """
            import json, sys, frostfork
            if sys.version_info >= (3, 12):
                sys.monitoring.use_tool_id(4, "another")
            else:
                sys.setprofile(lambda *event: None)
            with frostfork.observe(code=True) as seen: import colorsys
            sys.setprofile(None)
            print(json.dumps([seen.complete, seen.hot_code, [m.name for m in seen.modules]]))
            """
    ) == [True, [], ["colorsys"]]
