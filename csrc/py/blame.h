// SPDX-License-Identifier: Apache-2.0
//
// What each changed byte of a child is part of.

#ifndef FROSTFORK_PY_BLAME_H
#define FROSTFORK_PY_BLAME_H

#include "os/witness.h"
#include "py/version.h"

// Why a word changed. A page counts under the cause of most of its changed bytes, the first of them where two are even.
enum ff_cause {
  FF_CAUSE_REFCOUNT,   // reference counts
  FF_CAUSE_COLLECTOR,  // collector headers
  FF_CAUSE_CODE,       // inline caches and counters of code objects
  FF_CAUSE_VERSION,    // versions of dicts, types and functions, given out when a use of them is specialized
  FF_CAUSE_TYPE,       // bodies of types
  FF_CAUSE_TABLE,      // tables of dicts, sets and lists, buffers of bytearrays
  FF_CAUSE_OBJECT,     // bodies of other objects
  FF_CAUSE_NEW,        // objects and tables that were not there at the start: put into free memory of a shared page
  FF_CAUSE_ALLOCATOR,  // free blocks and pool headers of pymalloc
  FF_CAUSE_MALLOC,     // heap and anonymous memory that belongs to no object that is known
  FF_CAUSE_LIBRARY,    // data of the interpreter and of C libraries
  FF_CAUSE_STACK,      // the stack, Python's frames, thread states
  FF_CAUSE_OTHER,      // other private mappings
  FF_CAUSE_UNCHANGED,  // pages only: written, and every byte is what it was
  FF_CAUSE_UNKNOWN,    // pages only: the original was not kept
  FF_CAUSES
};

// Attributes the findings. Returns a new tuple (causes, owners, complete), or NULL with an exception set:
//   causes: for each cause (pages, pages that have some of it, pages that have nothing else, changed bytes)
//   owners: a list of (cause, key, pages, changed bytes), where key is a type, the file name of code, or that of a
//   library complete: whether all objects could be found
PyObject *ff_blame_judge(const struct ff_witness_findings *findings, PyObject *tracked, Py_ssize_t frozen);

#endif
