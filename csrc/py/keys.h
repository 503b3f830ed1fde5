// SPDX-License-Identifier: Apache-2.0
//
// The keys that a class keeps for the attributes of its instances. See keys.c.

#ifndef FROSTFORK_PY_KEYS_H
#define FROSTFORK_PY_KEYS_H

#include <stdbool.h>

#include "py/version.h"

// Lets later instances of this class, which must never be freed, write nothing into the keys that they share. False
// where there was nothing to do.
bool ff_keys_settle(PyTypeObject *type);

#endif
