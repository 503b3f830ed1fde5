# SPDX-License-Identifier: Apache-2.0
"""After a warmup, what a module drops is closed: whatever kind of holder had it."""

from __future__ import annotations

import sys

import pytest

from tests.integration.fresh import run_fresh

pytestmark = pytest.mark.skipif(sys.version_info < (3, 12), reason="immortal objects came with Python 3.12")

# {OWN} makes something that owns a descriptor, and the module `holder` drops what is made here.
HOLDERS = {
    "itself": "{OWN}",
    "a list": "[{OWN}]",
    "a tuple": "(1, {OWN})",
    "a dict": "dict(key={OWN})",
    "a deque": "collections.deque([{OWN}])",
    "a partial function": "functools.partial(print, {OWN})",
    "a bound method": "{OWN}.fileno",
    "an iterator": "iter([{OWN}])",
    "an object": "Client({OWN})",
    "an object whose dict was asked for": "asked(Client({OWN}))",
    "an object with many attributes": "many(Client({OWN}))",
    "an object with slots": "Slots({OWN})",
    "a namespace": "types.SimpleNamespace(own={OWN})",
}
OWNERS = {
    "file": "open('/dev/null')",
    "socket": "socket.socket()",
    "tls": "tls.wrap_socket(socket.socket(), do_handshake_on_connect=False)",
    "epoll": "select.epoll()",
    "temporary file": "tempfile.NamedTemporaryFile()",
    "database": "database()",
}
SCRIPT = """
    import collections, functools, gc, json, os, select, socket, sqlite3, ssl, sys, tempfile, types, warnings
    warnings.simplefilter("ignore", ResourceWarning)
    holder = types.ModuleType("holder"); sys.modules["holder"] = holder
    class Client:
        def __init__(self, own): self.own = own
    class Slots:
        __slots__ = ("own",)
        def __init__(self, own): self.own = own
    def asked(client):
        assert client.__dict__
        return client
    def many(client):
        vars(client).update({f"attribute_{number}": number for number in range(500)})
        return client
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname = False
    def database():
        base = sqlite3.connect(tempfile.mkdtemp() + "/base")
        base.execute("create table one (two)")  # the file is opened by now
        return base
    def descriptors():
        return len(os.listdir("/proc/self/fd"))
    before = {}
    for name, make in json.loads(MAKERS).items():
        count = descriptors()
        vars(holder)[name] = eval(make)
        before[name] = descriptors() - count
    import frostfork
    # Without freeze, which keeps cycles: a connection of sqlite3 is one, with the cache of its statements.
    frostfork.warmup(strict=True, steps=["immortalize"])
    after = {}
    for name in before:
        count = descriptors()
        del vars(holder)[name]
        gc.collect()
        after[name] = count - descriptors()
    print(json.dumps([before, after]))
"""


def dropped(makers: dict[str, str]) -> tuple[dict[str, int], dict[str, int]]:
    """By name: descriptors that making it opened, and that dropping it closed."""
    import json

    opened, closed = run_fresh(SCRIPT.replace("MAKERS", repr(json.dumps(makers))))
    return opened, closed


def test_every_owner() -> None:
    opened, closed = dropped(OWNERS)
    assert all(opened.values())
    assert closed == opened


def test_every_holder() -> None:
    opened, closed = dropped(
        {name: text.replace("{OWN}", "open('/dev/null')") for name, text in HOLDERS.items()}
    )
    assert opened == dict.fromkeys(HOLDERS, 1)
    assert closed == opened


def test_threads_of_a_pool_end_with_it() -> None:
    assert run_fresh(
        """
        import concurrent.futures, gc, json, sys, threading, types, weakref
        import frostfork
        holder = types.ModuleType("holder"); sys.modules["holder"] = holder
        holder.pools = [concurrent.futures.ThreadPoolExecutor(2)]
        holder.pools[0].submit(len, "").result()
        threads = list(holder.pools[0]._threads)
        gone = weakref.ref(holder.pools[0])
        frostfork.warmup(steps=["immortalize", "freeze"])
        del holder.pools
        for thread in threads: thread.join(30)
        print(json.dumps([gone() is None, [thread.is_alive() for thread in threads]]))
        """
    ) == [True, [False]]


def test_a_module_is_imported_again() -> None:
    assert run_fresh(
        """
        import importlib, json, sys
        import frostfork
        frostfork.warmup()
        first = sys.modules.pop("json")
        import json as second
        third = importlib.reload(second)
        frostfork.warmup()
        print(third.dumps([second is first, third is second, third.loads("[1]"), first.loads("[1]")]))
        """
    ) == [False, True, [1], [1]]


def test_what_stands_in_sys_modules_is_not_asked_anything() -> None:
    """Objects of all kinds stand there; a lazy module would import itself."""
    assert run_fresh(
        """
        import importlib.util, json, sys, types
        class Hostile:
            def __getattribute__(self, name): raise RuntimeError(name)
        class HostileModule(types.ModuleType):
            def __getattribute__(self, name): raise RuntimeError(name)
        spec = importlib.util.find_spec("colorsys")
        spec.loader = importlib.util.LazyLoader(spec.loader)
        lazy = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(lazy)
        sys.modules.update(hostile=Hostile(), module=HostileModule("module"), none=None, number=3, colorsys=lazy)
        import frostfork
        ledger = frostfork.Ledger()
        code = json.loads.__code__
        ledger.hot_code[code.co_filename, code.co_firstlineno, code.co_qualname] = 1
        steps = ["compact_code", "immortalize", "freeze"]
        report = frostfork.warmup(ledger, steps=steps, strict=True)
        print(json.dumps([report.steps["compact_code"].count, type(lazy).__name__, json.loads("1")]))
        """
    ) == [1, "_LazyModule", 1]
