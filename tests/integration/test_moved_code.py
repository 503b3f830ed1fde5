# SPDX-License-Identifier: Apache-2.0
"""Functions of every kind do after compact_code what they did before."""

from __future__ import annotations

from pathlib import Path

from tests.integration.fresh import run_fresh

MODULE = '''
import functools

pair = [lambda: 1, lambda: 2]; table = {"a": lambda x: x, "b": lambda x: -x}
def generator(count):
    for i in range(count):
        yield i
def outer(kept):
    def middle():
        def inner(): return kept
        return inner
    return middle
class Class:
    """
    >>> Class().method()
    True
    """
    def method(self): return super().__hash__() == hash(self)
    @staticmethod
    def static(): return "static"
    @classmethod
    def of_class(cls): return cls.__name__
    @property
    def name(self): return "name"
    class Inner:
        numbers = [i for i in range(3)]
        def own(self): return [self.__class__.__name__ for _ in range(2)]
@functools.singledispatch
def dispatched(value): return "any"
@dispatched.register
def _(value: int): return "int"
@functools.wraps(generator)
def wrapper(*values, **named): return generator(*values, **named)
@functools.lru_cache
def cached(value): return [value]
async def coroutine(): return 5
def fails(): raise KeyError("here")
def recurses(depth): return 0 if depth == 0 else 1 + recurses(depth - 1)
def comprehends(values): return [a * b for a in values for b in [1]], {k: v for k, v in zip(values, values)}
def named(a, /, b, *, c=3, **rest): return locals()
'''

USE = """
def use(module):
    import asyncio, doctest, inspect, pickle, traceback
    thing = module.Class()
    try: module.fails()
    except KeyError: failed = traceback.format_exc()
    tested = doctest.testmod(module)
    return [
        [function() for function in module.pair], [function(3) for function in module.table.values()],
        list(module.generator(3)), list(module.wrapper(2)), module.outer(7)()(),
        thing.method(), thing.static(), thing.of_class(), thing.name, thing.Inner().own(), thing.Inner.numbers,
        module.dispatched("a"), module.dispatched(1), module.cached(4), module.recurses(50),
        module.comprehends([1, 2])[0], len(module.comprehends([1, 2])[1]), module.named(1, 2, z=4),
        asyncio.run(module.coroutine()), failed,
        str(inspect.signature(module.wrapper)), inspect.getsource(module.named),
        tested.attempted, tested.failed, pickle.loads(pickle.dumps(module.named)) is module.named,
    ]
"""

LEARN = """
import json, sys, types
sys.path.insert(0, ".")
from frostfork import Ledger, warmup
ledger = Ledger()
def learn(code):
    ledger.hot_code[code.co_filename, code.co_firstlineno, getattr(code, "co_qualname", code.co_name)] = 1
    for part in code.co_consts:
        if isinstance(part, types.CodeType): learn(part)
def learn_module(module):
    with open(module.__file__) as file: learn(compile(file.read(), module.__file__, "exec"))
def move():
    return warmup(ledger, steps=["compact_code"], strict=True).steps["compact_code"].count
"""


def test_every_kind_of_function(tmp_path: Path) -> None:
    (tmp_path / "kinds.py").write_text(MODULE)
    before, moved, again, after, same = run_fresh(
        LEARN
        + USE
        + """
import kinds
learn_module(kinds)
before = use(kinds)
old = kinds.generator.__code__
moved, again = move(), move()
same = [kinds.generator.__code__ is old, kinds.generator.__code__ == old]
print(json.dumps([before, moved, again, use(kinds), same]))
""",
        cwd=tmp_path,
    )
    assert after == before
    assert moved >= 20
    assert again == 0
    assert same == [False, True]


def test_what_runs_meanwhile_runs_on(tmp_path: Path) -> None:
    """A generator that has begun, a closure that exists, and the function that calls for the warmup."""
    (tmp_path / "kinds.py").write_text(MODULE)
    assert run_fresh(
        LEARN
        + """
import kinds
learn_module(kinds)
learn(move.__code__)
begun, middle = kinds.generator(3), kinds.outer(7)
inner = middle()
next(begun)
moved = move() > 0
print(json.dumps([moved, list(begun), inner(), middle()()]))
""",
        cwd=tmp_path,
    ) == [True, [1, 2], 7, 7]


def test_equal_code_of_two_files_stays_apart(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text("def function(): return [x for x in (1, 2)]\n")
    assert run_fresh(
        LEARN
        + """
import one, two
learn_module(one); learn_module(two)
moved = move()
files = [module.function.__code__.co_filename == module.__file__ for module in (one, two)]
print(json.dumps([moved, files, one.function(), two.function()]))
""",
        cwd=tmp_path,
    ) == [2, [True, True], [1, 2], [1, 2]]


def test_a_tracer_that_comes_later_sees_every_line(tmp_path: Path) -> None:
    (tmp_path / "kinds.py").write_text(MODULE)
    before, after = run_fresh(
        LEARN
        + """
import kinds
learn_module(kinds)
def lines():
    seen = []
    def trace(frame, event, argument):
        if frame.f_code.co_filename == kinds.__file__: seen.append([event, frame.f_lineno])
        return trace
    sys.settrace(trace)
    kinds.outer(1)()(); kinds.comprehends([1]); list(kinds.generator(2)); kinds.recurses(2)
    sys.settrace(None)
    return seen
before = lines()
move()
print(json.dumps([before, lines()]))
""",
        cwd=tmp_path,
    )
    assert after == before
    assert len(after) > 20


def test_nothing_moves_while_a_tool_watches() -> None:
    assert run_fresh(
        LEARN
        + """
import threading
learn(json.loads.__code__)
threading.settrace(lambda *_: None)
watched = move()
threading.settrace(None)
print(json.dumps([watched, move()]))
"""
    ) == [0, 1]
