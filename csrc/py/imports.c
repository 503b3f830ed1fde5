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
// What it does not see: modules made by hand (importlib.util.module_from_spec), and importlib.reload, which runs again
// what is there and which no preload would spare. What those import in turn is seen.

#include "py/imports.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "os/growth.h"

static struct {
  PyObject *importlib;  // _frozen_importlib, NULL while nothing is recorded
  PyObject *original;   // its _find_and_load
  PyObject *replacement;
  PyObject *count_threads;  // _thread._count
  pid_t pid;                // whose imports these are: a child of it goes on without a record
  long number;              // of this record: an import that began before it is not part of it
  struct ff_growth growth;
  int fd;
  dev_t device;
  ino_t inode;
  long lost;
} record = {.fd = -1, .growth = {.fd = -1}};

// What an import took: nanoseconds, and bytes by which the private memory of the process grew.
struct cost {
  int64_t ns, bytes;
};

// What imports within the present one took: it subtracts that to know its own.
static _Thread_local struct cost nested;

// The name of the import in progress in this thread, a reference of its own: with greenlets an inner import may end
// after its outer one.
static _Thread_local PyObject *importing;

static int64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static struct cost cost_now(void) { return (struct cost){now_ns(), ff_growth_bytes(&record.growth)}; }

// More may have been given back than taken: that is no growth.
static int64_t at_least_zero(int64_t number) { return number > 0 ? number : 0; }

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

static bool has_nul(PyObject *text) { return PyUnicode_FindChar(text, 0, 0, PyUnicode_GetLength(text), 1) >= 0; }

// Called with any exception of the import put aside; leaves none behind. importer: NULL for none.
static void note_import(PyObject *name, int64_t start, struct cost own, struct cost cumulative, const char *error,
                        PyObject *importer) {
  // A name with a NUL in it is no module's, and would shift the fields of the record.
  if (has_nul(name)) return;
  if (importer != NULL && has_nul(importer)) importer = NULL;
  PyObject *origin = error[0] ? PyUnicode_FromString("") : origin_of(name);
  PyObject *text = NULL, *bytes = NULL;
  if (origin != NULL) {
    text = PyUnicode_FromFormat("import%c%U%c%U%c%lld%c%lld%c%lld%c%s%c%lld%c%lld%c%V%c", 0, name, 0, origin, 0,
                                (long long)start, 0, (long long)own.ns, 0, (long long)cumulative.ns, 0, error, 0,
                                (long long)own.bytes, 0, (long long)cumulative.bytes, 0, importer, "", 0);
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
  if (record.importlib == NULL || original != record.original || record.pid != getpid() || nargs < 1 ||
      !PyUnicode_Check(args[0])) {
    return PyObject_Vectorcall(original, args, (size_t)nargs, NULL);
  }
  PyObject *importer = importing;
  importing = Py_NewRef(args[0]);
  struct cost outer = nested, start = cost_now();
  nested = (struct cost){0};
  long threads = thread_count(), number = record.number;
  PyObject *module = PyObject_Vectorcall(original, args, (size_t)nargs, NULL);

  // Not if the import ended the record, or forked and this is the child: the parent notes it.
  if (record.importlib != NULL && record.number == number && record.pid == getpid()) {
    struct cost end = cost_now();
    struct cost cumulative = {end.ns - start.ns, at_least_zero(end.bytes - start.bytes)};
    struct cost own = {cumulative.ns - nested.ns, at_least_zero(cumulative.bytes - nested.bytes)};
    nested = (struct cost){outer.ns + cumulative.ns, outer.bytes + cumulative.bytes};
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (thread_count() > threads) note_thread(args[0]);
    note_import(args[0], start.ns, own, cumulative, type != NULL ? ((PyTypeObject *)type)->tp_name : "", importer);
    PyErr_Restore(type, value, traceback);
  }
  PyObject *ended = importing;
  importing = importer;
  Py_XDECREF(ended);
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
  // Where /proc is closed, all are 0 bytes large.
  ff_growth_init(&record.growth);
  nested = (struct cost){0};
  Py_CLEAR(importing);  // of an observation that this is in the middle of
  record.number++;
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
  ff_growth_fini(&record.growth);
  return record.lost;
}
