// SPDX-License-Identifier: Apache-2.0
//
// A record of every import that does work.

#ifndef FROSTFORK_PY_IMPORTS_H
#define FROSTFORK_PY_IMPORTS_H

#include "py/version.h"

// From now on, each module that is really loaded is written to `fd` when its import ends, as ten fields that end with a
// NUL byte each: "import", name, origin ("" for none), start, self and cumulative nanoseconds, the exception's type
// name
// ("" for success), self and cumulative bytes by which the process's private memory grew (csrc/os/growth.h), and the
// name of the module during whose import this one began ("" for none). Returns 0, or -1 with an exception set (already
// recording, importlib unlike expected).
int ff_imports_start(int fd);

// Ends the record and puts importlib back. Returns how many records could not be written.
long ff_imports_stop(void);

#endif
