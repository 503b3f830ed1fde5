// SPDX-License-Identifier: Apache-2.0
//
// Which object owns an address: the live objects, and the memory that hangs on them, on a given set of pages.

#ifndef FROSTFORK_PY_CENSUS_H
#define FROSTFORK_PY_CENSUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "os/witness.h"
#include "py/version.h"

enum ff_span_kind {
  FF_SPAN_OBJECT,
  FF_SPAN_CODE,
  FF_SPAN_TYPE,
  FF_SPAN_TABLE,  // memory that a dict, set, list or bytearray owns
  FF_SPAN_STACK,  // frames of Python functions, thread states
};

struct ff_span {
  uintptr_t start, end;  // an object's begins with what stands before it, such as the collector's header
  PyObject *object;      // the object, or the owner of a table; NULL for a stack
  uintptr_t anchor;      // a word that holds the same as at the start if this was here then; 0 for none
  enum ff_span_kind kind;
  bool collected;  // has the collector's header
};

enum { FF_CENSUS_CANDIDATES = 8 };

struct ff_census {
  const struct ff_witness_findings *pages;
  uint8_t filter[1 << 15];
  struct ff_span *spans;  // by address
  size_t count, room;
  PyTypeObject **types;  // every type met, by address
  size_t types_count, types_room;
  uintptr_t *listed;  // every object of the list `tracked`, by address
  size_t listed_count, listed_room;
  PyObject *candidates[FF_CENSUS_CANDIDATES];  // tracked and not listed
  size_t candidates_count;
  bool complete;  // the frozen objects were found
  int error;
};

// Lists what lies on the given pages: all that the objects of the list `tracked` (gc.get_objects()) and the modules
// reach, and all frozen objects, of which there are `frozen` (gc.get_freeze_count()). Creates no object. Returns 0 or
// -ENOMEM.
int ff_census_init(struct ff_census *census, const struct ff_witness_findings *pages, PyObject *tracked,
                   Py_ssize_t frozen);

// The span at this address, or else the last one before it; NULL for none.
const struct ff_span *ff_census_before(const struct ff_census *census, uintptr_t address);

bool ff_census_is_type(const struct ff_census *census, uintptr_t address);

void ff_census_fini(struct ff_census *census);

// The index of the page at this address (rounded down to a page) or of the next one above it.
size_t ff_census_page(const struct ff_witness_findings *pages, uintptr_t address);

#endif
