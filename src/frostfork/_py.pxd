# SPDX-License-Identifier: Apache-2.0
# The interpreter layer, csrc/py.

from posix.types cimport pid_t

from frostfork._os cimport ff_baseline, ff_witness_findings


cdef extern from "py/fork.h":
    # The freeze function travels as a bare pointer because it may be NULL, which a Python object may not.
    pid_t ff_py_fork(void *freeze, ff_baseline *baseline, int *baseline_rc) except? -1


cdef extern from "py/imports.h":
    int ff_imports_start(int fd) except -1
    long ff_imports_stop()


cdef extern from "py/immortal.h":
    ctypedef struct ff_immortal_t "struct ff_immortal":
        size_t objects
        size_t bytes
        size_t left_alone
        size_t hashed
        size_t versions

    bint ff_immortal_supported()
    bint ff_immortal_made()
    int ff_immortal_make(ff_immortal_t *out, bint afresh) except -1
    size_t ff_immortal_keep(object objects)


cdef extern from "py/hot.h":
    int ff_hot_start() except -1
    bytes ff_hot_stop()
    list ff_hot_functions(dict wanted)
    int ff_hot_set_code(object function, object code) except -1
    int ff_hot_same_kinds(object copy, object code) except -1


cdef extern from "py/blame.h":
    object ff_blame_judge(const ff_witness_findings *findings, object tracked, Py_ssize_t frozen)


cdef extern from "py/pool.h":
    ctypedef struct ff_pool_drain_t "struct ff_pool_drain":
        void *first
        size_t blocks
        size_t bytes

    int ff_pool_drain(ff_pool_drain_t *drain, size_t most)
    void ff_pool_release(ff_pool_drain_t *drain)
