# SPDX-License-Identifier: Apache-2.0
# cython: language_level=3, binding=False, embedsignature=False
"""The binding: integers and sizes go in and out, and a negative errno becomes an OSError. No policy."""

cimport cython

import errno
import gc
import os
import sys

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.limits cimport INT_MAX
from libc.errno cimport EAGAIN as errno_EAGAIN, ECONNRESET as errno_ECONNRESET, EINTR as errno_EINTR
from libc.errno cimport ENOBUFS as errno_ENOBUFS, ENOMEM as errno_ENOMEM, EPIPE as errno_EPIPE, errno as c_errno
from libc.string cimport memcmp, memcpy
from posix.fcntl cimport F_DUPFD_CLOEXEC, fcntl
from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.unistd cimport close

from frostfork._os cimport EPOLL_CTL_MOD, EPOLLIN, EPOLLOUT, epoll_ctl, epoll_event, eventfd_write

from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetObject, PyErr_WriteUnraisable
from cpython.function cimport PyFunction_Check
from cpython.mem cimport PyMem_Free, PyMem_Malloc

cdef extern from "Python.h":
    unsigned int PyType_ClearCache()

from frostfork._os cimport (
    FF_CHANNEL_FDS,
    FF_KINDS,
    c_bool,
    ff_baseline,
    ff_baseline_compare,
    ff_baseline_fini,
    ff_baseline_info,
    ff_baseline_init,
    ff_baseline_take,
    ff_baseline_info_t,
    ff_comparison,
    ff_board,
    ff_board_allow,
    ff_board_begin,
    ff_board_create,
    ff_board_end,
    ff_board_fini,
    ff_board_is_apart,
    ff_board_look,
    ff_board_map,
    ff_board_measured,
    ff_board_reset,
    ff_board_view,
    ff_board_withdraw,
    ff_channel_patience,
    ff_channel_receive,
    ff_channel_receive_awake,
    ff_channel_send,
    ff_counts,
    ff_counts_take,
    ff_descriptors_of_library,
    ff_descriptors_release,
    FF_HEAP_NAME,
    ff_heap,
    ff_heap_allocator,
    ff_heap_drain,
    ff_heap_release,
    ff_huge,
    ff_huge_collapse,
    ff_huge_made,
    ff_kernel,
    ff_kernel_probe,
    ff_kernel_threads,
    ff_merge_get,
    ff_merge_set,
    ff_process_adopt_orphans,
    ff_process_die_with_parent,
    ff_process_environment,
    ff_process_exit_status,
    FF_PROCESS_SIGNALS,
    ff_process_libraries_loaded,
    ff_process_set_name,
    ff_process_signal_actions,
    ff_witness,
    ff_witness_findings,
    ff_witness_fini,
    ff_witness_finish,
    ff_witness_start,
    pid_t,
)
from frostfork._py cimport (
    ff_blame_judge,
    ff_hot_functions,
    ff_hot_same_kinds,
    ff_hot_set_code,
    ff_hot_start,
    ff_hot_stop,
    ff_immortal_keep,
    ff_immortal_made,
    ff_immortal_make,
    ff_immortal_supported,
    ff_immortal_t,
    ff_imports_start,
    ff_imports_stop,
    ff_pool_drain,
    ff_pool_drain_t,
    ff_pool_release,
    ff_py_fork,
)

cdef extern from "Python.h":
    bint PyCFunction_Check(object)

# Bound once: a test that puts a mock in the place of gc.freeze must not change what a fork does.
cdef object _freeze = gc.freeze
cdef object _get_objects = gc.get_objects
cdef object _get_freeze_count = gc.get_freeze_count

# In the order of enum ff_kind.
KINDS = ("heap", "stack", "anonymous", "file", "shared", "special")


cdef int check(int rc, object path=None) except -1:
    if rc < 0:
        if path is None:
            raise OSError(-rc, os.strerror(-rc))
        raise OSError(-rc, os.strerror(-rc), path)
    return rc


cdef str proc_path(pid_t pid):
    return f"/proc/{pid or 'self'}/pagemap"


def kernel():
    """What the kernel offers this process, as a dict; sizes in bytes, `pagemap` 0 or an errno."""
    cdef ff_kernel found
    check(ff_kernel_probe(&found))
    return {
        "release": (found.major, found.minor),
        "page_size": found.page_size,
        "pagemap": -found.pagemap,
        "pagemap_scan": bool(found.pagemap_scan),
        "procmap_query": bool(found.procmap_query),
        "frame_numbers": bool(found.frame_numbers),
        "madv_collapse": bool(found.madv_collapse),
        "memfd": bool(found.memfd),
    }


def threads():
    """How many threads this process has, native ones included; 0 where the kernel does not say."""
    return max(0, ff_kernel_threads())


def page_counts(pid_t pid=0):
    """(present, anonymous, file, exclusive, shared, swapped, huge) in pages; huge is -1 where it cannot be known."""
    cdef ff_counts found
    cdef int rc
    with nogil:
        rc = ff_counts_take(pid, &found)
    check(rc, proc_path(pid))
    return (found.present, found.anonymous, found.file, found.exclusive, found.shared, found.swapped, found.huge)


cdef class BaselineHandle:
    """Owns the shared memory of one baseline. For one thread at a time."""

    cdef ff_baseline baseline
    cdef pid_t pid

    def __cinit__(self, pid_t pid=0):
        self.pid = pid
        check(ff_baseline_init(&self.baseline, pid))

    def __dealloc__(self):
        ff_baseline_fini(&self.baseline)

    def take(self):
        cdef int rc
        with nogil:
            rc = ff_baseline_take(&self.baseline, self.pid)
        check(rc, proc_path(self.pid))

    def info(self):
        """(owner, anonymous, shared, frames, bytes): pages but for the last."""
        cdef ff_baseline_info_t found
        ff_baseline_info(&self.baseline, &found)
        return (found.owner, found.anonymous, found.shared, bool(found.frames), found.bytes)

    def compare(self):
        """(by_kind, unmapped, frames): by_kind has a tuple (unshared, copied, new, dropped) for each of KINDS."""
        cdef ff_comparison found
        cdef int rc
        with nogil:
            rc = ff_baseline_compare(&self.baseline, &found)
        check(rc, proc_path(self.pid))
        kinds = []
        for i in range(FF_KINDS):
            change = found.by_kind[i]
            kinds.append((change.unshared, change.copied, change.fresh, change.dropped))
        return (tuple(kinds), found.unmapped, bool(found.frames))


cdef class WitnessHandle:
    """Owns a witness: a process that keeps this one's pages as they were when start() was called.

    For one thread at a time.
    """

    cdef ff_witness witness

    def __dealloc__(self):
        ff_witness_fini(&self.witness)

    def start(self):
        """Begin anew. OSError where /proc refuses, or where there can be no further process (EAGAIN, ENOMEM)."""
        cdef int rc
        ff_witness_fini(&self.witness)
        with nogil:
            rc = ff_witness_start(&self.witness)
        check(rc, proc_path(0) if rc in (-errno.EACCES, -errno.EPERM, -errno.ENOENT) else None)

    @property
    def pid(self):
        """The witness's process, 0 once it has ended."""
        return self.witness.pid

    def finish(self):
        """(causes, owners, complete, kinds, dropped, new); the first three as in csrc/py/blame.h, pages for the others.

        kinds has the unshared pages for each of KINDS.

        OSError with ESRCH when the witness was killed, or belongs to another process.
        """
        cdef ff_witness_findings found
        cdef int rc
        cdef int64_t dropped, fresh
        with nogil:
            rc = ff_witness_finish(&self.witness, &found)
        try:
            check(rc)
            # From here on the pages may be written again: what is judged is written down.
            causes, owners, complete = ff_blame_judge(&found, _get_objects(), _get_freeze_count())
            dropped = found.sums.unmapped
            fresh = 0
            kinds = []
            for i in range(FF_KINDS):
                kinds.append(found.sums.by_kind[i].unshared)
                dropped += found.sums.by_kind[i].dropped
                fresh += found.sums.by_kind[i].fresh
        finally:
            ff_witness_fini(&self.witness)
        return (causes, owners, complete, tuple(kinds), dropped, fresh)

    def close(self):
        """End the witness without a verdict."""
        ff_witness_fini(&self.witness)


def fork(bint freeze=True, BaselineHandle baseline=None):
    """os.fork; in the child, freeze and then take the baseline before any at-fork hook runs. Returns (pid, errno).

    The errno is that of taking the baseline in the child, 0 where it worked or none was asked for.
    """
    cdef int rc = 0
    cdef pid_t pid = ff_py_fork(
        <void *> _freeze if freeze else NULL, &baseline.baseline if baseline is not None else NULL, &rc
    )
    return (pid, -rc)


def imports_start(int fd):
    """Write a record of every import that does work to fd, until imports_stop."""
    ff_imports_start(fd)


def imports_stop():
    """Stop the record; how many entries could not be written."""
    return ff_imports_stop()


def immortal_supported():
    """Whether this interpreter has immortal objects."""
    return bool(ff_immortal_supported())


def immortalized():
    """Whether immortalize() has been called in this process, or in one that it was forked from."""
    return bool(ff_immortal_made())


def clear_type_cache():
    """Let go of what lookups in classes were kept, which a process that looks up others would have to let go of."""
    if sys.version_info >= (3, 12):  # before, classes would lose their versions, too
        PyType_ClearCache()


def immortalize_these(list objects not None):
    """Make these immortal, and nothing that they refer to. How many were not; 0 where there are no immortal objects."""
    return ff_immortal_keep(objects)


def immortalize(bint afresh=False):
    """Make immortal what modules reach, or what of it is new: (objects, bytes, left_alone, hashed, versions)."""
    cdef ff_immortal_t done
    ff_immortal_make(&done, afresh)
    return (done.objects, done.bytes, done.left_alone, done.hashed, done.versions)


def code_start():
    """Note each code object that starts to run, once. RuntimeError or ValueError if another tool has the place."""
    ff_hot_start()


def code_stop():
    """Stop; what ran, in the order of first runs, as the journal has it: see csrc/py/hot.h."""
    return ff_hot_stop()


def functions(dict wanted):
    """The functions that modules reach and whose code has such a tuple among the keys of wanted."""
    return ff_hot_functions(wanted)


def copy_code(code, constants):
    """A copy of the code with other constants."""
    copy = code.replace(co_consts=constants)
    ff_hot_same_kinds(copy, code)
    return copy


def set_code(function, code):
    """Give a function other code of equal meaning."""
    ff_hot_set_code(function, code)


def report_unraisable(object error, object where):
    """Give an exception that nobody can be told of to sys.unraisablehook."""
    PyErr_SetObject(type(error), error)
    PyErr_WriteUnraisable(where)


# One each, for there is one heap.
cdef ff_pool_drain_t _pools
cdef ff_heap _heap


def heap_allocator():
    """"" where malloc is glibc's own, else the file name of what stands in its place."""
    cdef char name[FF_HEAP_NAME]
    return "" if ff_heap_allocator(name) == 0 else name.decode(errors="replace")


def heap_drain(size_t largest, size_t most):
    """Hold free chunks of at most `largest` bytes, at most `most` bytes in all; (chunks, bytes, capped)."""
    check(ff_heap_drain(&_heap, largest, most))
    return (_heap.chunks, _heap.bytes, bool(_heap.capped))


def heap_held():
    """Bytes that are held."""
    return _heap.bytes


def heap_release():
    """Give all of them back."""
    ff_heap_release(&_heap)


def pool_drain(size_t most):
    """Hold free blocks of the pools of Python's own allocator, at most `most` bytes in all; (blocks, bytes)."""
    check(ff_pool_drain(&_pools, most))
    return (_pools.blocks, _pools.bytes)


def pool_held():
    """Bytes that are held."""
    return _pools.bytes


def pool_release():
    """Give all of them back."""
    ff_pool_release(&_pools)


def collapse(int share, int64_t fewest):
    """((ranges, already, shared, sparse), (collapsed, failed, added pages, errno)): see ff_huge_collapse."""
    cdef ff_huge found
    cdef ff_huge_made made
    cdef int rc
    with nogil:
        rc = ff_huge_collapse(share, fewest, &found, &made)
    check(rc, proc_path(0))
    return (
        (found.ranges, found.already, found.shared, found.sparse),
        (made.collapsed, made.failed, made.added, made.first_error),
    )


def merge_set(bint merge):
    """Let the kernel merge pages of this process that are alike, or no longer."""
    check(ff_merge_set(merge))


def merge_get():
    """Whether it may."""
    return bool(check(ff_merge_get()))


def die_with_parent(int signal):
    """This process gets `signal` when the thread that forked it ends."""
    check(ff_process_die_with_parent(signal))


def adopt_orphans():
    """Orphaned descendants become children of this process instead of init's."""
    check(ff_process_adopt_orphans())


def exit_status(int pidfd):
    """The wait status of the process behind a pidfd, once somebody has waited for it; None where it is not known.

    Linux 6.15 and newer tell it, to whoever had the pidfd open before.
    """
    cdef int status
    return status if ff_process_exit_status(pidfd, &status) == 1 else None


def set_process_name(bytes name not None):
    """What ps and top call this process; 15 bytes of it."""
    ff_process_set_name(name)


def release_descriptors(tuple kept not None, tuple closed not None):
    """Let go of every descriptor but 0 to 2 and `kept`; close those in `closed`, keep the other numbers taken."""
    cdef size_t count = len(kept)
    cdef size_t closing = len(closed)
    cdef int *numbers = <int *>PyMem_Malloc((count + closing + 1) * sizeof(int))
    if numbers == NULL:
        raise MemoryError
    try:
        for index, fd in enumerate(kept + closed):
            numbers[index] = fd
        check(ff_descriptors_release(numbers, count, numbers + count, closing))
    finally:
        PyMem_Free(numbers)


def is_of_library(int fd):
    """Whether this is the file of a loaded library, open for reading: libffi's, which it needs in every process."""
    return bool(ff_descriptors_of_library(fd))


def environment_sum():
    """A number that changes with the C library's environment."""
    return ff_process_environment()


def signal_actions():
    """What the kernel does with each signal from 1 on: a handler's address, or 0 and 1 for default and ignored."""
    cdef uint64_t actions[FF_PROCESS_SIGNALS]
    ff_process_signal_actions(actions)
    return tuple([actions[i] for i in range(FF_PROCESS_SIGNALS)])


def libraries_loaded():
    """How many shared objects this process has loaded so far."""
    return ff_process_libraries_loaded()


include "_board.pxi"
include "_mutex.pxi"
include "_channel.pxi"
include "_outlet.pxi"
include "_line.pxi"
include "_desk.pxi"
include "_runner.pxi"
