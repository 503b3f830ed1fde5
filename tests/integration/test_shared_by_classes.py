# SPDX-License-Identifier: Apache-2.0
"""What classes keep for their instances and for each other: children do not write it, and it ends where it must."""

from __future__ import annotations

import sys

import pytest

from tests.integration.fresh import run_fresh

pytestmark = pytest.mark.skipif(sys.version_info < (3, 12), reason="immortal objects came with Python 3.12")


def test_instances_write_nothing_into_the_keys_of_their_class() -> None:
    seen = run_fresh(
        """
        import json, os, sys, types
        import frostfork
        def init(self):
            self.first, self.second = 1, 2
        holder = types.ModuleType("holder"); sys.modules["holder"] = holder
        holder.classes = [type(f"Made{at}", (), {"__init__": init}) for at in range(400)]
        for each in holder.classes:
            each(), each()
        frostfork.warmup(steps=["immortalize", "freeze"])
        read, write = os.pipe()
        if (child := frostfork.fork()) == 0:
            with frostfork.blame() as report:
                kept = [each() for each in holder.classes]
                dicts = [vars(each) for each in kept]
            more = kept[0]
            for at in range(40):
                setattr(more, f"other{at}", at)
            right = vars(more) == {"first": 1, "second": 2, **{f"other{at}": at for at in range(40)}}
            right = right and all(each == {"first": 1, "second": 2} for each in dicts[1:])
            os.write(write, json.dumps([report.causes["tables"].touched, right]).encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as answer:
            print(answer.read())
        assert os.waitpid(child, 0)[1] == 0
        """
    )
    pages, right = seen
    assert right
    assert pages < 20  # the keys of 400 classes lie on some 80 pages


@pytest.mark.parametrize("runs", [1, 2])
def test_entries_for_classes_stay_and_entries_for_instances_die(runs: int) -> None:
    """Whatever else is in the table, and however often all is gone through."""
    assert run_fresh(
        """
        import gc, json, sys, types, weakref
        import frostfork
        holder = types.ModuleType("holder"); sys.modules["holder"] = holder
        class Key: pass
        def immortal(thing):
            return sys.getrefcount(thing) > 1 << 20
        def run():
            first, second, third = Key(), Key(), Key()
            holder.by_key = weakref.WeakKeyDictionary({Key: ["of the class"], first: ["of the instance"]})
            holder.mixed = weakref.WeakKeyDictionary({first: ["beside a file"], third: open("/dev/null")})
            holder.by_value = weakref.WeakValueDictionary({tuple("a1"): Key, tuple("b2"): second})
            holder.awaited = weakref.WeakKeyDictionary({Key: ["awaited"]})
            dead = []
            weakref.finalize(holder.awaited, dead.append, True)
            for run in range({RUNS}):
                frostfork.warmup(steps=["immortalize", "freeze"], afresh=run > 0)
            lasting = [holder.by_key, holder.by_key[Key], holder.by_value, *(k for k in holder.by_value if k[0] == "a")]
            dying = [holder.by_key[first], holder.mixed[first], holder.awaited]
            dying += [k for k in holder.by_value if k[0] == "b"]
            said = [[immortal(thing) for thing in things] for things in (lasting, dying)]
            del first, second, third, dying, holder.awaited
            gc.collect()
            return [*said, [*holder.by_key, *holder.mixed] == [Key], list(holder.by_value) == [tuple("a1")], dead]
        print(json.dumps(run()))
        """.replace("{RUNS}", str(runs))
    ) == [[True] * 4, [False] * 4, True, True, [True]]


def test_a_weak_reference_to_a_class_is_shared_for_good() -> None:
    assert run_fresh(
        """
        import json, sys, weakref
        import frostfork
        class Base: pass
        class Derived(Base): pass
        frostfork.warmup(steps=["immortalize"])
        found = weakref.ref(Derived)
        print(json.dumps([sys.getrefcount(found) > 1 << 20, found() is Derived]))
        """
    ) == [True, True]
