// SPDX-License-Identifier: Apache-2.0
//
// Which code runs, and which functions it belongs to. See hot.c.

#ifndef FROSTFORK_PY_HOT_H
#define FROSTFORK_PY_HOT_H

#include "py/version.h"

// Note each code object that starts to run from now on, once; before 3.12, in this thread. Returns 0, or -1 with an
// exception set: RuntimeError if that is being done already, or if a profiler is in the way (since 3.12: ValueError).
int ff_hot_start(void);

// Stop, and return what was noted as new bytes, in the order in which it ran first. Entries are separated by 0x1e; each
// is file name, first line and qualified name in UTF-8, separated by 0x1f. A file name that is left empty is that of
// the entry before. NULL with an exception set. Empty bytes if nothing was started; in a child of a process that
// started, that ends it for the child.
PyObject *ff_hot_stop(void);

// A new list of the functions that can be reached from sys.modules and whose code has its tuple (file name, first line,
// qualified name) among the keys of `wanted` (a dict). Left out is code to which somebody has tied something: weak
// references, or data of a debugger.
PyObject *ff_hot_functions(PyObject *wanted);

// Give a function other code of equal meaning, and keep what the interpreter knows of the function.
int ff_hot_set_code(PyObject *function, PyObject *code);

// code.replace() forgets which variables are arguments (3.14) and which belong to a comprehension (3.12): give the copy
// what the code knows. 0, or -1 with an exception set.
int ff_hot_same_kinds(PyObject *copy, PyObject *code);

#endif
