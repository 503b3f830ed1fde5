// SPDX-License-Identifier: Apache-2.0
//
// os.fork, with a frozen child.

#ifndef FROSTFORK_PY_FORK_H
#define FROSTFORK_PY_FORK_H

#include "py/version.h"

#include "os/baseline.h"

// Forks as os.fork does. In the child, `freeze` (gc.freeze, or NULL) is called and then `baseline` (or NULL) is taken
// before any at-fork hook runs; *baseline_rc is 0 or the negative errno of taking it. Returns 0 in the child, the pid
// in the parent, or -1 with an exception set.
pid_t ff_py_fork(PyObject *freeze, struct ff_baseline *baseline, int *baseline_rc);

#endif
