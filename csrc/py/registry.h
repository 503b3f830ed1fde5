// SPDX-License-Identifier: Apache-2.0
//
// Weak dicts of the standard library that a walk meets. See registry.c.

#ifndef FROSTFORK_PY_REGISTRY_H
#define FROSTFORK_PY_REGISTRY_H

#include <stdbool.h>
#include <stddef.h>

#include "py/version.h"

enum { FF_REGISTRIES = 1 << 10 };

struct ff_registries {
  PyTypeObject *types[2];           // NULL where nobody has imported the module
  PyObject *tables[FF_REGISTRIES];  // the dict in each that was met
  size_t count;
  PyObject *later;  // a list: keys and values to walk from when the walk under way is done
};

// 0, or -1 with an exception set.
int ff_registries_init(struct ff_registries *registries);

// Whether this is a WeakKeyDictionary or WeakValueDictionary to which nobody but itself has a weak reference. It is
// noted then.
bool ff_registries_note(struct ff_registries *registries, PyObject *object);

// The same for one that is immortal already, whoever refers to it: its table is noted. False: it could not be, and it
// is not to be walked. True as well for what is no such dict.
bool ff_registries_know(struct ff_registries *registries, PyObject *object);

// Whether this dict is the table of one that was noted. Its entries for classes, functions and modules are then in
// `later`; nothing else in it is to be walked.
bool ff_registries_meet(struct ff_registries *registries, PyObject *dict);

void ff_registries_fini(struct ff_registries *registries);

#endif
