// SPDX-License-Identifier: Apache-2.0
//
// The code that children run is written to: the specializing interpreter counts and caches within the bytecode. It lies
// scattered among ten times as much code that nobody runs. Who knows which code is hot can move it together.
//
// Learning happens in a child, once per code object and not per call. Since 3.12 sys.monitoring does just that: a
// callback at the start of a function that says "not again" for this code. Before, a profile function is called for
// every call and return; it is written in C and looks at a flag-sized table.
//
// What it cannot see: code that runs in C alone; before 3.12 code of other threads than the one that started it, and
// code that another profiler keeps us from seeing.

#include "py/hot.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "py/walk.h"

// Enough for any parse; more code than this is not hot.
enum { MOST_CODE = 1 << 15, TABLE = 1 << 16 };

// Mapped anew for each use and not from the heap, which would clear it, 190 pages, or fill holes in shared pages.
struct seen {
  PyCodeObject *codes[MOST_CODE];  // strong references, in the order of their first run
#if PY_VERSION_HEX < 0x030C0000
  PyCodeObject *table[TABLE];  // the same again, open addressing
#endif
};

static struct {
  bool started;
  pid_t pid;
  struct seen *seen;
  size_t count;
  PyObject *monitoring;  // since 3.12: sys.monitoring
  PyObject *disable;     // its DISABLE, kept: another thread may be in the callback still
  bool attached_before;  // in this process or in one that it was forked from
} hot;

// A tool number that nobody else has by convention: 0, 1, 2 and 5 are the debugger's, coverage's, profiler's,
// optimizer's.
enum { TOOL = 4, PY_START = 1 };

static PyObject *name_of(PyCodeObject *code) {
#if PY_VERSION_HEX >= 0x030B0000
  return code->co_qualname;
#else
  return code->co_name;
#endif
}

static PyObject *key_of(PyCodeObject *code) {
  return Py_BuildValue("(OiO)", code->co_filename, code->co_firstlineno, name_of(code));
}

static void note(PyCodeObject *code) {
  if (hot.count >= MOST_CODE) return;
  Py_INCREF(code);
  hot.seen->codes[hot.count++] = code;
}

#if PY_VERSION_HEX >= 0x030C0000

static PyObject *on_start(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
  (void)self;
  if (hot.started && nargs > 0 && PyCode_Check(args[0])) note((PyCodeObject *)args[0]);
  return Py_NewRef(hot.disable);
}

static PyMethodDef definition = {"note_code", (PyCFunction)(void (*)(void))on_start, METH_FASTCALL, NULL};

// Takes back whatever of the three was given. The next tool of this number must not meet our callback.
static void detach(void) {
  PyObject *done = PyObject_CallMethod(hot.monitoring, "set_events", "ii", TOOL, 0);
  Py_XDECREF(done);
  done = PyObject_CallMethod(hot.monitoring, "register_callback", "iiO", TOOL, PY_START, Py_None);
  Py_XDECREF(done);
  done = PyObject_CallMethod(hot.monitoring, "free_tool_id", "i", TOOL);
  Py_XDECREF(done);
  PyErr_Clear();
  Py_CLEAR(hot.monitoring);
}

static int attach(void) {
  PyObject *callback = NULL, *done = NULL;
  hot.monitoring = Py_XNewRef(PySys_GetObject("monitoring"));
  if (hot.monitoring == NULL) goto failed;
  if (hot.disable == NULL) hot.disable = PyObject_GetAttrString(hot.monitoring, "DISABLE");
  callback = PyCFunction_New(&definition, NULL);
  if (hot.disable == NULL || callback == NULL) goto failed;
  done = PyObject_CallMethod(hot.monitoring, "use_tool_id", "is", TOOL, "frostfork");
  if (done == NULL) goto failed;
  Py_DECREF(done);
  done = PyObject_CallMethod(hot.monitoring, "register_callback", "iiO", TOOL, PY_START, callback);
  if (done != NULL) {
    Py_DECREF(done);
    done = PyObject_CallMethod(hot.monitoring, "set_events", "ii", TOOL, PY_START);
  }
  // "Not again" outlives the tool that said so: code that was noted once, here or in a parent, would be passed over.
  if (done != NULL && hot.attached_before) {
    Py_DECREF(done);
    done = PyObject_CallMethod(hot.monitoring, "restart_events", NULL);
  }
  if (done == NULL) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    detach();
    PyErr_Restore(type, value, traceback);
    goto failed;
  }
  Py_DECREF(done);
  Py_DECREF(callback);
  hot.attached_before = true;
  return 0;
failed:
  Py_XDECREF(callback);
  Py_CLEAR(hot.monitoring);
  if (!PyErr_Occurred()) PyErr_SetString(PyExc_RuntimeError, "this interpreter has no sys.monitoring");
  return -1;
}

#else

static int on_event(PyObject *self, PyFrameObject *frame, int what, PyObject *argument) {
  (void)self;
  (void)argument;
  if (!hot.started) {  // stopped by another thread, which could not take this one's profile function away
    PyEval_SetProfile(NULL, NULL);
    return 0;
  }
  if (what != PyTrace_CALL) return 0;
  PyCodeObject *code = PyFrame_GetCode(frame);
  size_t at = (size_t)(((uintptr_t)code >> 4) * UINT64_C(0x9E3779B97F4A7C15) >> 20) & (TABLE - 1);
  while (hot.seen->table[at] != NULL && hot.seen->table[at] != code) at = (at + 1) & (TABLE - 1);
  if (hot.seen->table[at] == NULL && hot.count < MOST_CODE) {
    hot.seen->table[at] = code;
    note(code);
  }
  Py_DECREF(code);
  return 0;
}

static int attach(void) {
  PyObject *getprofile = PySys_GetObject("getprofile");
  PyObject *present = getprofile != NULL ? PyObject_CallNoArgs(getprofile) : NULL;
  if (present == NULL) return -1;
  bool taken = present != Py_None;
  Py_DECREF(present);
  if (taken) {
    PyErr_SetString(PyExc_RuntimeError, "a profiler is in the way");
    return -1;
  }
  PyEval_SetProfile(on_event, NULL);
  return 0;
}

// Unless the code that was observed has put another in its place.
static void detach(void) {
  if (PyThreadState_Get()->c_profilefunc == on_event) PyEval_SetProfile(NULL, NULL);
}

#endif

// A child of a process that notes code goes on noting, into memory that nobody will read.
static void forget_parents(void) {
  if (!hot.started || hot.pid == getpid()) return;
  hot.started = false;
  detach();
}

int ff_hot_start(void) {
#ifdef Py_GIL_DISABLED
  PyErr_SetString(PyExc_RuntimeError, "a free-threaded build may run code in several threads at once");
  return -1;
#endif
  forget_parents();
  if (hot.started) {
    PyErr_SetString(PyExc_RuntimeError, "code is already being observed in this process");
    return -1;
  }
  void *seen = mmap(NULL, sizeof *hot.seen, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (seen == MAP_FAILED) {
    PyErr_NoMemory();
    return -1;
  }
  hot.seen = seen;
  hot.count = 0;
  hot.started = true;
  hot.pid = getpid();
  if (attach() == 0) return 0;
  hot.started = false;
  munmap(hot.seen, sizeof *hot.seen);
  return -1;
}

enum { ENTRY = sizeof "\x1e\x1f-2147483648\x1f" };

// Bytes that an entry may take: at most four for a character.
static size_t most_bytes(PyCodeObject *code, bool same_file) {
  size_t file = same_file ? 0 : 4 * (size_t)PyUnicode_GET_LENGTH(code->co_filename);
  return ENTRY + file + 4 * (size_t)PyUnicode_GET_LENGTH(name_of(code));
}

// The end of what it wrote: "?" for a string that cannot be encoded.
static char *put_string(char *at, PyObject *string) {
  size_t size = (size_t)PyUnicode_GET_LENGTH(string);
  // An ASCII string has its UTF-8 already; another would keep it, in new memory, until it dies.
  if (PyUnicode_IS_COMPACT_ASCII(string)) return (char *)memcpy(at, PyUnicode_DATA(string), size) + size;
  PyObject *encoded = PyUnicode_AsEncodedString(string, "utf-8", "surrogateescape");
  size = encoded != NULL ? (size_t)PyBytes_GET_SIZE(encoded) : 1;
  memcpy(at, encoded != NULL ? PyBytes_AS_STRING(encoded) : "?", size);
  Py_XDECREF(encoded);
  PyErr_Clear();
  return at + size;
}

// printf would take as long as all else.
static char *put_number(char *at, int number) {
  char digits[12], *first = digits + sizeof digits;
  unsigned rest = number < 0 ? 0 : (unsigned)number;
  do *--first = (char)('0' + rest % 10);
  while ((rest /= 10) > 0);
  size_t size = (size_t)(digits + sizeof digits - first);
  return (char *)memcpy(at, first, size) + size;
}

static bool same_file(size_t at) {
  return at > 0 && hot.seen->codes[at]->co_filename == hot.seen->codes[at - 1]->co_filename;
}

static PyObject *record(void) {
  size_t most = 0;
  for (size_t i = 0; i < hot.count; i++) most += most_bytes(hot.seen->codes[i], same_file(i));
  PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)most);
  if (bytes == NULL) return NULL;
  char *start = PyBytes_AS_STRING(bytes), *at = start;
  for (size_t i = 0; i < hot.count; i++) {
    PyCodeObject *code = hot.seen->codes[i];
    if (i > 0) *at++ = '\x1e';
    if (!same_file(i)) at = put_string(at, code->co_filename);
    *at++ = '\x1f';
    at = put_number(at, code->co_firstlineno);
    *at++ = '\x1f';
    at = put_string(at, name_of(code));
  }
  // A name may be any string, and a NUL would end the journal's record.
  for (char *zero = start; (zero = memchr(zero, 0, (size_t)(at - zero))) != NULL;) *zero = '?';
  _PyBytes_Resize(&bytes, at - start);
  return bytes;
}

PyObject *ff_hot_stop(void) {
  forget_parents();
  if (!hot.started) return PyBytes_FromStringAndSize(NULL, 0);
  hot.started = false;
  detach();
  PyObject *bytes = record();
  for (size_t i = 0; i < hot.count; i++) Py_DECREF(hot.seen->codes[i]);
  munmap(hot.seen, sizeof *hot.seen);
  return bytes;
}

struct search {
  PyObject *wanted;
  PyObject *found;
  bool failed;
};

static bool is_tied(PyCodeObject *code) { return code->co_weakreflist != NULL || code->co_extra != NULL; }

// An ff_walk_meet.
static bool meet(PyObject *object, void *argument) {
  struct search *search = argument;
  if (!search->failed && PyFunction_Check(object)) {
    PyCodeObject *code = (PyCodeObject *)PyFunction_GET_CODE(object);
    PyObject *key = key_of(code);
    int known = key != NULL ? PyDict_Contains(search->wanted, key) : -1;
    Py_XDECREF(key);
    if (known > 0 && !is_tied(code) && PyList_Append(search->found, object) < 0) known = -1;
    search->failed = known < 0;
  }
  return !search->failed;
}

PyObject *ff_hot_functions(PyObject *wanted) {
  PyObject *modules = PyImport_GetModuleDict();
  struct search search = {.wanted = wanted, .found = PyList_New(0)};
  struct ff_walk walk;
  if (modules == NULL || search.found == NULL || ff_walk_init(&walk, meet, &search) < 0) {
    Py_XDECREF(search.found);
    return PyErr_NoMemory();
  }
  // Before 3.12 a collection may begin with any allocation; what it calls might change the graph under our feet.
  int collects = PyGC_Disable();
  int rc = ff_walk_from(&walk, modules);
  if (collects) PyGC_Enable();
  ff_walk_fini(&walk);
  if (rc == 0 && !search.failed) return search.found;
  Py_DECREF(search.found);
  return PyErr_Occurred() ? NULL : PyErr_NoMemory();
}

int ff_hot_set_code(PyObject *function, PyObject *code) {
#if FF_PY_FUNCTION_VERSION
  PyFunctionObject *changed = (PyFunctionObject *)function;
  bool plain = changed->func_version == ((PyCodeObject *)changed->func_code)->co_version;
#endif
  int rc = PyObject_SetAttrString(function, "__code__", code);
#if FF_PY_FUNCTION_VERSION
  // The interpreter takes the version away with the code, and each child would write a new one into the function. A
  // function that was never altered has its code's version; with other code of equal meaning it is as unaltered.
  if (rc == 0 && plain) changed->func_version = ((PyCodeObject *)code)->co_version;
#endif
  return rc;
}

int ff_hot_same_kinds(PyObject *copy, PyObject *code) {
#if PY_VERSION_HEX >= 0x030B0000
  PyCodeObject *to = (PyCodeObject *)copy, *from = (PyCodeObject *)code;
  int same = PyObject_RichCompareBool(to->co_localsplusnames, from->co_localsplusnames, Py_EQ);
  if (same <= 0) return same;
  Py_INCREF(from->co_localspluskinds);
  Py_SETREF(to->co_localspluskinds, from->co_localspluskinds);
#else
  (void)copy;
  (void)code;
#endif
  return 0;
}
