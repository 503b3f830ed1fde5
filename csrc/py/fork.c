// SPDX-License-Identifier: Apache-2.0
//
// The fork itself, in the three steps that CPython offers to whoever embeds it.
//
// os.fork leaves no room between fork(2) and the first at-fork hook of Python code. The room matters: a hook allocates,
// an allocation may start a collection, and a collection writes into the header of every object that the child
// inherited. So the child freezes first and runs the hooks afterwards.
//
// Freezing in the child costs the parent nothing. Freezing in the parent and unfreezing after the fork, the recipe of
// gc.freeze's documentation, puts everything into the oldest generation each time, whose collection then never comes
// due: a parent that forks on and on leaks its cyclic garbage.
//
// What differs from os.fork: the warning about threads (3.12+) is given by the caller, who knows their names.

#include "py/fork.h"

#include <errno.h>
#include <unistd.h>

// The two refusals of os.fork that need no fork to be known.
static int may_fork(void) {
  if (FF_PY_FINALIZING()) {
    PyErr_SetString(FF_PY_FINALIZATION_ERROR, "can't fork at interpreter shutdown");
    return 0;
  }
  if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
    PyErr_SetString(PyExc_RuntimeError, "fork not supported for subinterpreters");
    return 0;
  }
  return PySys_Audit("os.fork", NULL) == 0;
}

static void freeze_child(PyObject *freeze) {
  if (freeze == NULL) return;
  PyObject *done = PyObject_CallNoArgs(freeze);
  if (done == NULL) PyErr_WriteUnraisable(freeze);  // the child lives: it only shares less
  Py_XDECREF(done);
}

pid_t ff_py_fork(PyObject *freeze, struct ff_baseline *baseline, int *baseline_rc) {
  if (!may_fork()) return -1;
  PyOS_BeforeFork();
  pid_t pid = fork();
  int error = errno;
  if (pid == 0) {
    if (FF_PY_FREEZE_BEFORE_HOOKS) freeze_child(freeze);
    if (baseline != NULL) *baseline_rc = ff_baseline_take(baseline, 0);
    PyOS_AfterFork_Child();
    if (!FF_PY_FREEZE_BEFORE_HOOKS) freeze_child(freeze);
    return 0;
  }
  PyOS_AfterFork_Parent();
  if (pid < 0) {
    errno = error;
    PyErr_SetFromErrno(PyExc_OSError);
  }
  return pid;
}
