// SPDX-License-Identifier: Apache-2.0
//
// Every difference between the supported CPythons that the C code knows of, in one place.

#ifndef FROSTFORK_PY_VERSION_H
#define FROSTFORK_PY_VERSION_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#if PY_VERSION_HEX < 0x030A0000
#error "frostfork needs CPython 3.10 or newer"
#endif

// Sizes of headers and pools are those of 64-bit builds.
#if SIZEOF_VOID_P != 8
#error "frostfork needs a 64-bit CPython"
#endif

// os.fork refuses at interpreter shutdown since 3.12, with an exception of its own since 3.13.
#if PY_VERSION_HEX >= 0x030D0000
#define FF_PY_FINALIZING() Py_IsFinalizing()
#define FF_PY_FINALIZATION_ERROR PyExc_PythonFinalizationError
#elif PY_VERSION_HEX >= 0x030C0000
#define FF_PY_FINALIZING() _Py_IsFinalizing()
#define FF_PY_FINALIZATION_ERROR PyExc_RuntimeError
#else
#define FF_PY_FINALIZING() 0
#define FF_PY_FINALIZATION_ERROR PyExc_RuntimeError
#endif

// gc.freeze stops the world in a free-threaded build, which it cannot do before PyOS_AfterFork_Child has restarted it.
#ifdef Py_GIL_DISABLED
#define FF_PY_FREEZE_BEFORE_HOOKS 0
#else
#define FF_PY_FREEZE_BEFORE_HOOKS 1
#endif

// Immortal objects (PEP 683) have a constant in the public headers, whose name changed. 3.15 has a function too, but
// that is for objects which nobody else refers to yet. A free-threaded build counts references in two fields and defers
// some of it: not offered there.
#if PY_VERSION_HEX < 0x030C0000 || defined(Py_GIL_DISABLED)
#define FF_PY_IMMORTAL 0
#else
#define FF_PY_IMMORTAL 1
#if PY_VERSION_HEX >= 0x030E0000
// The evaluation stack of 3.14 goes by the flag: without it the count alone is decremented without a look.
#define FF_PY_MAKE_IMMORTAL(object) \
  ((object)->ob_flags |= _Py_IMMORTAL_FLAGS, (object)->ob_refcnt = _Py_IMMORTAL_INITIAL_REFCNT)
#else
#define FF_PY_MAKE_IMMORTAL(object) ((object)->ob_refcnt = _Py_IMMORTAL_REFCNT)
#endif
#endif

// Functions and code have a version by which calls are specialized; a function that was never altered has its code's.
// Read in the sources of these versions only.
#if PY_VERSION_HEX >= 0x030C0000 && PY_VERSION_HEX < 0x030F0000 && !defined(Py_GIL_DISABLED)
#define FF_PY_FUNCTION_VERSION 1
#else
#define FF_PY_FUNCTION_VERSION 0
#endif

#if PY_VERSION_HEX >= 0x030C0000
#define FF_PY_IS_IMMORTAL(object) _Py_IsImmortal(object)
#else
#define FF_PY_IS_IMMORTAL(object) 0
#endif

#endif
