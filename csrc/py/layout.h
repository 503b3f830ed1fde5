// SPDX-License-Identifier: Apache-2.0
//
// How many bytes objects take, and where.

#ifndef FROSTFORK_PY_LAYOUT_H
#define FROSTFORK_PY_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#include "py/version.h"

// The collector's header in front of an object; free-threaded builds have none, nor lists of objects.
#ifdef Py_GIL_DISABLED
enum { FF_LAYOUT_HEADER = 0 };
#else
enum { FF_LAYOUT_HEADER = 16 };
#endif

// Bytes from the object's address on, without what it has elsewhere.
size_t ff_layout_size(PyObject *object);

// Bytes before the object that belong to it: the collector's header, and pointers to a dict and weak references.
size_t ff_layout_before(PyObject *object);

// The keys of dicts are not in the public headers: struct _dictkeysobject, without its tables, as the sources of 3.10
// to 3.14 have it.
struct ff_keys {
#if PY_VERSION_HEX >= 0x030B0000
  Py_ssize_t references;
  uint8_t log2_size, log2_index_bytes, kind;
#ifdef Py_GIL_DISABLED
  uint8_t mutex;
#endif
  uint32_t version;
#else
  Py_ssize_t references, size;
  void *lookup;
#endif
  Py_ssize_t usable, entries;
};

// Bytes of a PyDictKeysObject; 0 for one that is not as expected.
size_t ff_layout_keys_size(const void *keys);

#endif
