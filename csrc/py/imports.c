// SPDX-License-Identifier: Apache-2.0
//
// Import telemetry that leaves no trace.
//
// The import statement looks in sys.modules itself and calls importlib._bootstrap._find_and_load for what is not there;
// importlib.import_module and the import of a parent package end in the same function. It is looked up by name at each
// call, in every CPython from 3.3 to 3.14, so a function put in its place sees exactly the imports that do work.
//
// Ways that were rejected: a finder in sys.meta_path sees imports begin and never end; a wrapped loader shows in
// module.__loader__ and breaks importlib.resources; a replaced builtins.__import__ pays for each cached import and
// misses import_module; an audit hook cannot be removed; -X importtime prints to stderr. A wrapper in Python would
// stand as a frame in the traceback of every failing import, and tracebacks are what Airflow shows its users as import
// errors. A C function has no frame.
//
// A record is written when its import ends and is whole or absent: a child killed in the middle of a parse leaves all
// that it had imported by then. The descriptor belongs to a file in memory, so that a write neither waits nor fails
// for lack of a reader. User code may close it and open another file under its number, so each write makes sure first
// that it is still the same file.
//
// What it cannot see: modules made by hand (importlib.util.module_from_spec), and importlib.reload.

#include "py/imports.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static struct {
  PyObject *importlib;  // _frozen_importlib, NULL while nothing is recorded
  PyObject *original;   // its _find_and_load
  PyObject *replacement;
  PyObject *count_threads;  // _thread._count
  pid_t pid;                // whose imports these are: a child of it goes on without a record
  int fd;
  dev_t device;
  ino_t inode;
  long lost;
} record = {.fd = -1};

// Nanoseconds that imports within the present one took: what it subtracts to know its own.
static _Thread_local int64_t nested_ns;

static int64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

// module.__spec__.origin as a new string; "" for whatever has none, such as a namespace package. "?" for something that
// put itself into sys.modules in place of a module: it may answer attribute access with code of its own.
static PyObject *origin_of(PyObject *name) {
  PyObject *origin = NULL;
  PyObject *module = PyImport_GetModule(name);
  if (module != NULL && PyModule_Check(module)) {
    PyObject *spec = PyDict_GetItemString(PyModule_GetDict(module), "__spec__");  // borrowed
    if (spec != NULL && spec != Py_None) origin = PyObject_GetAttrString(spec, "origin");
  }
  bool is_module = module != NULL && PyModule_Check(module);
  Py_XDECREF(module);
  if (origin != NULL && PyUnicode_Check(origin)) return origin;
  Py_XDECREF(origin);
  PyErr_Clear();
  return PyUnicode_FromString(is_module ? "" : "?");
}

static void write_record(PyObject *bytes) {
  struct stat now;
  char *data;
  Py_ssize_t size;
  if (bytes == NULL || PyBytes_AsStringAndSize(bytes, &data, &size) < 0 || fstat(record.fd, &now) < 0 ||
      now.st_dev != record.device || now.st_ino != record.inode || write(record.fd, data, (size_t)size) != size) {
    record.lost++;
  }
}

// How many threads Python has beside the main one, or 0 where that is unknown. Leaves no exception behind.
static long thread_count(void) {
  PyObject *count = record.count_threads != NULL ? PyObject_CallNoArgs(record.count_threads) : NULL;
  long number = count != NULL ? PyLong_AsLong(count) : 0;
  Py_XDECREF(count);
  PyErr_Clear();
  return number > 0 ? number : 0;
}

// The import left a thread running, which no child forked from a process that has the module would have.
static void note_thread(PyObject *name) {
  PyObject *text = PyUnicode_FromFormat("thread%c%U%c", 0, name, 0);
  PyObject *bytes = text != NULL ? PyUnicode_AsEncodedString(text, "utf-8", "surrogateescape") : NULL;
  write_record(bytes);
  PyErr_Clear();
  Py_XDECREF(bytes);
  Py_XDECREF(text);
}

// Called with any exception of the import put aside; leaves none behind.
static void note_import(PyObject *name, int64_t start, int64_t self, int64_t cumulative, const char *error) {
  // A name with a NUL in it is no module's, and would shift the fields of the record.
  if (PyUnicode_FindChar(name, 0, 0, PyUnicode_GetLength(name), 1) >= 0) return;
  PyObject *origin = error[0] ? PyUnicode_FromString("") : origin_of(name);
  PyObject *text = NULL, *bytes = NULL;
  if (origin != NULL) {
    text = PyUnicode_FromFormat("import%c%U%c%U%c%lld%c%lld%c%lld%c%s%c", 0, name, 0, origin, 0, (long long)start, 0,
                                (long long)self, 0, (long long)cumulative, 0, error, 0);
  }
  if (text != NULL) bytes = PyUnicode_AsEncodedString(text, "utf-8", "surrogateescape");
  write_record(bytes);
  PyErr_Clear();
  Py_XDECREF(bytes);
  Py_XDECREF(text);
  Py_XDECREF(origin);
}

// importlib's own function is this one's self: should someone have wrapped it while it was in place, theirs goes on
// calling it for good, and each must find its own way on.
static PyObject *find_and_load(PyObject *original, PyObject *const *args, Py_ssize_t nargs) {
  if (record.importlib == NULL || original != record.original || record.pid != getpid()) {
    return PyObject_Vectorcall(original, args, (size_t)nargs, NULL);
  }
  int64_t outer = nested_ns, start = now_ns();
  nested_ns = 0;
  long threads = thread_count();
  PyObject *module = PyObject_Vectorcall(original, args, (size_t)nargs, NULL);
  int64_t cumulative = now_ns() - start, self = cumulative - nested_ns;
  nested_ns = outer + cumulative;

  if (record.importlib != NULL && nargs > 0 && PyUnicode_Check(args[0])) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (thread_count() > threads) note_thread(args[0]);
    note_import(args[0], start, self, cumulative, type != NULL ? ((PyTypeObject *)type)->tp_name : "");
    PyErr_Restore(type, value, traceback);
  }
  return module;
}

static PyMethodDef definition = {"_find_and_load", (PyCFunction)(void (*)(void))find_and_load, METH_FASTCALL, NULL};

int ff_imports_start(int fd) {
  if (record.importlib != NULL && record.pid != getpid()) ff_imports_stop();  // it was the parent's
  if (record.importlib != NULL) {
    PyErr_SetString(PyExc_RuntimeError, "imports are already being recorded in this process");
    return -1;
  }
  struct stat file;
  if (fstat(fd, &file) < 0) {
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
  }
  PyObject *importlib = PyImport_ImportModule("_frozen_importlib");
  if (importlib == NULL) return -1;
  PyObject *original = PyObject_GetAttrString(importlib, "_find_and_load");
  PyObject *replacement = original != NULL ? PyCFunction_New(&definition, original) : NULL;
  if (replacement == NULL || PyObject_SetAttrString(importlib, "_find_and_load", replacement) < 0) {
    Py_XDECREF(replacement);
    Py_XDECREF(original);
    Py_DECREF(importlib);
    return -1;
  }
  if (record.count_threads == NULL) {
    PyObject *threads = PyImport_ImportModule("_thread");
    record.count_threads = threads != NULL ? PyObject_GetAttrString(threads, "_count") : NULL;
    Py_XDECREF(threads);
    PyErr_Clear();
  }
  Py_XDECREF(record.original);
  Py_XDECREF(record.replacement);
  record.importlib = importlib;
  record.original = original;
  record.replacement = replacement;
  record.fd = fd;
  record.pid = getpid();
  record.device = file.st_dev;
  record.inode = file.st_ino;
  record.lost = 0;
  return 0;
}

long ff_imports_stop(void) {
  if (record.importlib == NULL) return 0;
  // Whoever put a function of their own in the place of ours keeps it: theirs goes on calling ours, which goes on
  // calling importlib's and records nothing more.
  PyObject *present = PyObject_GetAttrString(record.importlib, "_find_and_load");
  if (present == record.replacement) PyObject_SetAttrString(record.importlib, "_find_and_load", record.original);
  Py_XDECREF(present);
  PyErr_Clear();
  Py_CLEAR(record.importlib);
  return record.lost;
}
