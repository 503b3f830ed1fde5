# SPDX-License-Identifier: Apache-2.0
"""A process of the multiprocessing context that starts from a zygote."""

from __future__ import annotations

import io
import os
from multiprocessing import popen_fork, reduction, resource_tracker, spawn, util
from multiprocessing.context import set_spawning_popen
from typing import TYPE_CHECKING, Any

from frostfork._popen import RUNS_ATEXIT, clear_atexit, close_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from frostfork._context_zygotes import Held
    from frostfork.zygote import Worker

_NOBODY_KNOWS = 255  # forkserver's exit code of a process whose end nobody was left to see
_REPORT_SECONDS = 5.0  # between the end of a worker and its zygote's word about it
_inherited: list[int] = []  # in a worker: the descriptors that came with its process object


class _Passed:
    """A descriptor on its way: its place among those that the worker gets."""

    def __init__(self, index: int) -> None:
        self._index = index

    def detach(self) -> int:
        return _inherited[self._index]


class ZygotePopen(popen_fork.Popen):
    """Pickles the process, lets a zygote fork the worker that unpickles it, and waits through the worker's pidfd."""

    method = "frostfork"
    DupFd = _Passed

    def __init__(self, process_obj: Any, find: Callable[[], Held]) -> None:
        """find: what it starts from, asked for when the process has turned out to be one that can be pickled."""
        self._find = find
        self._fds: list[int] = []
        super().__init__(process_obj)

    def duplicate_for_child(self, fd: int) -> int:
        self._fds.append(fd)
        return len(self._fds) - 1

    def _launch(self, process_obj: Any) -> None:
        data = self._pickled(process_obj)
        sentinel, alive = os.pipe()  # the other end of what the worker's parent_process() waits for
        try:
            tracker = resource_tracker.getfd()
            assert tracker is not None
            fds = (data, sentinel, tracker, *self._fds)
            self._held = self._find()
            self.worker: Worker = self._held.fork(process_obj.name, fds)
        except BaseException:
            os.close(alive)
            raise
        finally:
            close_all((data, sentinel))
        self.pid = self.worker.pid
        self.sentinel = self.worker.fileno()
        self.finalizer = util.Finalize(self, os.close, (alive,))

    def _pickled(self, process_obj: Any) -> int:
        """A file in memory that holds what forkserver would write into a pipe while the process reads."""
        buffer = io.BytesIO()
        # Raises where the main module has no guard.
        preparation = spawn.get_preparation_data(process_obj._name)
        if not os.path.exists(preparation.get("init_main_from_path", os.curdir)):
            del preparation["init_main_from_path"]  # of a program that was read from standard input
        set_spawning_popen(self)  # type: ignore[arg-type]  # it wants no more than ours has
        try:
            reduction.dump(preparation, buffer)
            reduction.dump(process_obj, buffer)
        except Exception as error:
            if hasattr(error, "add_note"):  # from Python 3.11 on
                error.add_note(
                    f"{process_obj.name} is pickled because it starts from the zygote: {process_obj.started.reason}."
                    ' get_context("fork") of frostfork.context pickles nothing.'
                )
            raise
        finally:
            set_spawning_popen(None)
        fd = os.memfd_create("frostfork-process", os.MFD_CLOEXEC)
        with open(fd, "wb", closefd=False) as file:
            file.write(buffer.getbuffer())
        os.lseek(fd, 0, os.SEEK_SET)
        return fd

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        if self.returncode is None:
            if flag == os.WNOHANG:
                if not self.worker.has_ended():
                    return None
                try:
                    ended = self.worker.wait(_REPORT_SECONDS)
                except TimeoutError:
                    return None
            else:
                ended = self.worker.wait()
            self.returncode = _NOBODY_KNOWS if ended.code is None else ended.code
            self._held.ended()
        return self.returncode

    def _send_signal(self, sig: int) -> None:
        if self.returncode is None:
            self.worker.send_signal(sig)


def begin(fds: list[int]) -> int:
    """A worker's whole life; the pickled process is in the first of the descriptors."""
    data, sentinel, tracker, *_inherited[:] = fds
    vars(resource_tracker._resource_tracker).update(_fd=tracker, _pid=None)
    if RUNS_ATEXIT:
        clear_atexit()
    code: int = vars(spawn)["_main"](data, sentinel)
    return code
