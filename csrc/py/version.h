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

#endif
