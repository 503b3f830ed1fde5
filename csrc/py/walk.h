// SPDX-License-Identifier: Apache-2.0
//
// A walk over the graph of objects that meets each object once. See walk.c.

#ifndef FROSTFORK_PY_WALK_H
#define FROSTFORK_PY_WALK_H

#include <stdbool.h>
#include <stddef.h>

#include "py/version.h"

// Asked once for each object, with a borrowed reference. Returns whether to go on to what the object refers to. Must
// not let another thread run, and must not free anything.
typedef bool (*ff_walk_meet)(PyObject *object, void *argument);

struct ff_walk {
  ff_walk_meet meet;
  void *argument;
  PyObject **met;  // open addressing, a power of two of slots, at most half of them in use
  size_t slots;
  size_t used;
  PyObject **open;  // met, and their references not yet visited
  size_t depth;
  size_t room;
  int error;  // -ENOMEM once the bookkeeping could not grow: the walk is then incomplete
};

int ff_walk_init(struct ff_walk *walk, ff_walk_meet meet, void *argument);

// Visit this object and all that can be reached from it, except through objects where meet() said no. 0 or -ENOMEM.
int ff_walk_from(struct ff_walk *walk, PyObject *root);

void ff_walk_fini(struct ff_walk *walk);

#endif
