# SPDX-License-Identifier: Apache-2.0
"""submit and map, for a pool and for its views."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from frostfork import _settings
from frostfork.pool.future import TaskFuture
from frostfork.pool.options import PLAIN
from frostfork.pool.payload import CALL

if TYPE_CHECKING:
    from frostfork.pool.engine import Engine
    from frostfork.pool.options import Options
    from frostfork.pool.payload import Calls, Payload

T = TypeVar("T")


class Tasks(Executor):
    """submit and map over an engine, with given options."""

    _engine: Engine
    _options: Options
    _calls: Calls

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run fn(*args, **kwargs) in a worker. What cannot be pickled is the future's exception, as elsewhere.

        Raises RuntimeError after shutdown(), PoolBroken if the workers ended one after the other, FrostforkError in a
        fork of the process that made the pool.
        """
        engine = self._engine
        if engine.forked:
            engine.check_owner()
        payload: bytes | Payload | None = None if kwargs else self._calls.plain(fn, args)
        flags = CALL
        if payload is None:
            try:
                payload, flags = self._calls.encode(fn, args, kwargs)
            except Exception as error:
                future = TaskFuture(engine, b"", 0)
                engine.refuse(future, error)
                return future
        future = TaskFuture(engine, payload, flags)
        options = self._options
        if options is not PLAIN:
            options.apply(future)
        engine.submit(future)
        return future

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """As concurrent.futures' process pools have it. buffersize: no more than so many chunks are submitted ahead."""
        chunksize = _settings.index("chunksize", chunksize)
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        if timeout is not None and not isinstance(timeout, (int, float)):
            raise TypeError(f"timeout must be None or seconds, not {timeout!r}")
        end = None if timeout is None else time.monotonic() + timeout
        calls = zip(*iterables)  # noqa: B905 - ends with the shortest, as Executor.map does
        chunks = iter(lambda: tuple(itertools.islice(calls, chunksize)), ())
        first = chunks if buffersize is None else itertools.islice(chunks, buffersize)
        futures = deque(self._submit_chunk(fn, chunk) for chunk in first)
        if buffersize is None:  # a pool that is dropped meanwhile may end when it has done what it has
            return _results(futures, _no_more, end)
        return _results(futures, lambda: next(map(partial(self._submit_chunk, fn), chunks), None), end)

    def _submit_chunk(self, fn: Callable[..., T], chunk: tuple[tuple[Any, ...], ...]) -> Future[list[T]]:
        return self.submit(_run_chunk, fn, chunk)


def _no_more() -> None:
    return None


def _results(
    futures: deque[Future[list[T]]], submit: Callable[[], Future[list[T]] | None], end: float | None
) -> Iterator[T]:
    """submit: hand in another chunk, if there is one."""
    try:
        while futures:
            future = futures[0]
            results = future.result(None if end is None else end - time.monotonic())
            futures.popleft()
            del future
            if (another := submit()) is not None:
                futures.append(another)
            del another
            results.reverse()
            while results:
                yield results.pop()
    finally:
        for each in futures:
            each.cancel()


def _run_chunk(fn: Callable[..., T], chunk: tuple[tuple[Any, ...], ...]) -> list[T]:
    return [fn(*args) for args in chunk]
