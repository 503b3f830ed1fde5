// SPDX-License-Identifier: Apache-2.0
//
// Objects whose reference counts are never written again (PEP 683). See immortal.c.

#ifndef FROSTFORK_PY_IMMORTAL_H
#define FROSTFORK_PY_IMMORTAL_H

#include <stdbool.h>
#include <stddef.h>

#include "py/version.h"

struct ff_immortal {
  size_t objects;     // made immortal now
  size_t bytes;       // their size, as sys.getsizeof gives it: memory that this process keeps for good
  size_t left_alone;  // met, and left to die when its time comes: see immortal.c
  size_t hashed;      // strings and bytes whose hash was computed
  size_t versions;    // classes that have a version tag, by which the interpreter caches attribute lookups
};

// Whether this interpreter has immortal objects.
bool ff_immortal_supported(void);

// Whether that has been done in this process, or in one that it was forked from.
bool ff_immortal_made(void);

// Make immortal what modules reach, as far as it owns no resource. The first time all of it; later what is new, which
// is new modules, and new functions and classes in old ones; with `afresh` all of it again, what old modules' data has
// become included. Returns 0, or -1 with an exception set; an object that is immortal by then stays so.
int ff_immortal_make(struct ff_immortal *out, bool afresh);

// Make these objects of a list immortal, whatever they are, and nothing that they refer to. The caller knows that they
// live as long as the process. Returns how many were not before; 0 where there are no immortal objects.
size_t ff_immortal_keep(PyObject *objects);

#endif
