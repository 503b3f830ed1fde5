# SPDX-License-Identifier: Apache-2.0
"""A multiprocessing context whose processes share what their parent loaded: multiprocessing.get_context("frostfork").

Whatever takes a context takes this one: Pool, ProcessPoolExecutor, joblib, DataLoader. A process starts in one of two
ways, and tells which in its attribute `started`:

- by frostfork.fork: it inherits everything, nothing is pickled, as with the start method fork;
- from a zygote: its target and arguments are pickled and descriptors are passed, as with forkserver.

"auto" forks from a process that has one thread and otherwise goes to the zygote, so that nothing is ever forked from a
process with threads. A pool starts workers later on, when it has threads of its own: all of its workers are the
zygote's, the first ones too, or they would differ from their replacements. A pool made in a process with one thread
gets a zygote forked at that moment, so that its workers inherit what fork would let them inherit.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.context
import multiprocessing.process
import multiprocessing.util
import threading
import time
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

if TYPE_CHECKING:
    from multiprocessing.popen_fork import Popen

    from frostfork.zygote import Zygote

    StartName = Literal["auto", "fork", "zygote"]

# What starts processes when it has threads: where its workers begin.
_POOL_WORKERS = (("multiprocessing.pool", "worker"), ("concurrent.futures.process", "_process_worker"))


_LEAVING_SECONDS = 0.02
_lasting = {"native": 0}  # how many threads there were, some of them not Python's, when waiting was of no use


class Started(NamedTuple):
    """How a process was started: "fork" or "zygote", and the reason in words."""

    method: str
    reason: str


class ForkProcess(multiprocessing.process.BaseProcess):
    """Started by frostfork.fork, whatever threads there are."""

    _start_method: str | None = "frostfork-fork"
    started: Started | None = None  # known in the process itself too, by its current_process()

    @staticmethod
    def _Popen(process_obj: Any) -> Popen:  # noqa: N802 - multiprocessing's name
        return _launch(process_obj, Started("fork", "asked for"))


class ZygoteProcess(ForkProcess):
    """Started from the zygote, however few threads there are."""

    _start_method = "frostfork-zygote"

    @staticmethod
    def _Popen(process_obj: Any) -> Popen:  # noqa: N802
        return _launch(process_obj, Started("zygote", "asked for"))


class Process(ForkProcess):
    """Started by fork from a process with one thread, otherwise from the zygote."""

    _start_method = "frostfork"

    @staticmethod
    def _Popen(process_obj: Any) -> Popen:  # noqa: N802
        threads = _other_threads()
        if threads:
            return _launch(
                process_obj, Started("zygote", f"its parent has other threads: {', '.join(threads)}")
            )
        if _is_pool_worker(process_obj):
            why = "its pool will replace workers when it has threads"
            return _launch(process_obj, Started("zygote", why), process_obj._args[0])
        return _launch(process_obj, Started("fork", "its parent has one thread"))


def _other_threads() -> list[str]:
    """Their names. A thread that was joined may not have left the kernel yet: it is given a moment to do so."""
    from frostfork import _core
    from frostfork.fork import other_threads

    deadline = time.monotonic() + _LEAVING_SECONDS
    while (count := _core.threads()) != 1:
        native = count != threading.active_count()
        if not native or count == _lasting["native"] or time.monotonic() > deadline:
            _lasting["native"] = count if native else 0
            try:
                return other_threads()
            except OSError:
                return ["unknown, since /proc cannot be read"]
        time.sleep(0.001)
    return []


def _is_pool_worker(process_obj: Any) -> bool:
    target = getattr(process_obj, "_target", None)
    return (getattr(target, "__module__", ""), getattr(target, "__name__", "")) in _POOL_WORKERS


def _launch(process_obj: Any, started: Started, pool: object = None) -> Popen:
    """pool: what is one and the same for all workers of the pool that has the process."""
    multiprocessing.util.info(f"{process_obj.name}: {started.method}, because {started.reason}")
    process_obj.started = started
    if started.method == "fork":
        from frostfork._popen import ForkPopen

        return ForkPopen(process_obj)
    from frostfork._context_zygotes import zygotes
    from frostfork._zygote_popen import ZygotePopen

    return ZygotePopen(process_obj, zygotes.get if pool is None else lambda: zygotes.for_pool(pool))


class _Name(str):
    """The name of a context. It brings this module along into an interpreter that unpickles it.

    multiprocessing tells each spawned process the name of the default context, which knows it only after this import.
    """

    __slots__ = ()

    def __reduce__(self) -> tuple[type[_Name], tuple[str]]:
        return _Name, (str(self),)


class FrostforkContext(multiprocessing.context.BaseContext):
    """All of multiprocessing, with processes that start as this module says."""

    _name: ClassVar[str] = _Name("frostfork")
    Process: ClassVar[type[ForkProcess]] = Process
    start: ClassVar[str] = "auto"

    @property
    def zygote(self) -> Zygote | None:
        """What this process's processes start from, once there is one; all contexts of a process have the same."""
        from frostfork._context_zygotes import zygotes

        return zygotes.current

    def start_zygote(self) -> Zygote:
        """Start the zygote now, or another one in its place.

        In a process with one thread it is forked from this process, and what starts from it has all that this process
        has now. In a process with threads it is a new interpreter, with set_forkserver_preload()'s modules.
        """
        from frostfork._context_zygotes import zygotes

        return zygotes.renew()

    def use_zygote(self, zygote: Zygote | None) -> None:
        """Start processes from this one, which the caller closes; None: from one of the contexts' own again."""
        from frostfork._context_zygotes import zygotes

        zygotes.use(zygote)

    def set_forkserver_preload(self, module_names: list[str], *args: Any, **options: Any) -> None:
        """Import these in the zygotes that start from now on, "__main__" among them if it is named (the default)."""
        from frostfork._context_zygotes import zygotes

        zygotes.preload(module_names)


class ForkContext(FrostforkContext):
    # Libraries ask for this name to learn what a start method does, and start all workers before they have threads.
    _name = "fork"
    Process = ForkProcess
    start = "fork"


class ZygoteContext(FrostforkContext):
    _name = _Name("frostfork-zygote")
    Process = ZygoteProcess
    start = "zygote"


_contexts: dict[str, FrostforkContext] = {
    "auto": FrostforkContext(),
    "fork": ForkContext(),
    "zygote": ZygoteContext(),
}


def get_context(start: StartName = "auto") -> FrostforkContext:
    """The multiprocessing context of frostfork. ValueError: no such start."""
    register()
    if start not in _contexts:
        raise ValueError(f"start is {start!r}; it can be 'auto', 'fork' or 'zygote'")
    return _contexts[start]


def register() -> None:
    """Make the contexts known to multiprocessing: "frostfork", "frostfork-fork" and "frostfork-zygote".

    get_all_start_methods() names the first, since some libraries take no name that it does not.
    """
    known: dict[str, Any] = vars(multiprocessing.context)["_concrete_contexts"]
    for start, context in _contexts.items():
        known.setdefault("frostfork" if start == "auto" else f"frostfork-{start}", context)
    default = _default()
    if "get_all_start_methods" not in vars(default):
        default.get_all_start_methods = _start_methods
        multiprocessing.get_all_start_methods = _start_methods  # a name of its own for the same method


def _start_methods() -> list[str]:
    """A list of the supported start methods, default first."""
    return [*multiprocessing.context.DefaultContext.get_all_start_methods(_default()), "frostfork"]


def _default() -> Any:
    return vars(multiprocessing.context)["_default_context"]


register()  # whoever unpickles a process of ours has imported this module and nothing else
