// SPDX-License-Identifier: Apache-2.0
//
// Immortal objects: a reference count that nobody writes.
//
// A child that looks at an object writes the object's reference count and thereby copies its page, though the count is
// back at its old value a moment later. Since CPython 3.12 an object may be immortal: its count has a value that every
// Py_INCREF and Py_DECREF leaves alone (PEP 683). The interpreter uses that for None and small integers; here it is
// given to all that modules reach: functions, classes, code, constants, dicts.
//
// The price is that an immortal object is never freed. So what must go on dying is left alone, and so is all that can
// only be reached through it:
//
//  - frames, generators, coroutines, tracebacks, and exceptions, which hold them: work under way
//  - whatever owns a resource or may: its class has close, fileno, shutdown, release, __exit__, __aexit__ or a
//    finalizer. These are files, sockets, locks, pools, executors, sessions, temporary folders, event loops
//  - instances of classes that are not built in, if a weak reference to them exists: somebody waits for their death;
//    the standard library's weak dicts refer to themselves, which does not count (registry.c)
//  - weak references themselves, but for those to classes, functions and modules
//  - thread-local data and contexts
//
// A list of sockets, a bound method of a file, an object with a connection among its attributes: who holds such a thing
// goes on dying too, for else the thing would stay open once its holder is dropped. What else the holder refers to is
// made immortal. (Attributes are looked at where there are a thousand or fewer, items of a list or tuple where there
// are 64.) That is so for what has close, fileno, shutdown or a finalizer, not for locks: a lock closes nothing, and
// with the holders of locks mortal a parsing child of Airflow had 700 page faults more. Holders of holders are not
// looked for.
//
// What it cannot see: a resource whose class has none of those names (a bare handle inside an extension type), and one
// whose holder's holder is dropped. It stays open until the process ends; the operating system takes it back then. So
// does what a dropped function has in its closure: functions, classes and modules are never left alone. And an
// immortal object looks as if it were in use everywhere: numpy's ndarray.resize() refuses it, as it refuses any
// array that somebody else refers to.
//
// A value that children would compute and store in the shared object is computed here instead: the hash of strings and
// bytes, the version tag of classes, and what a class counts in the keys of its instances (keys.c).

#include "py/immortal.h"

#include "py/keys.h"
#include "py/registry.h"
#include "py/walk.h"

#if FF_PY_IMMORTAL

#include <errno.h>
#include <string.h>

struct verdict {
  PyTypeObject *type;
  bool dies;          // its instances must go on dying
  bool closes;        // and so must whoever holds one
  bool sized;         // their size is more than the class says: ask size_of
  PyObject *size_of;  // borrowed
};

enum { CLOSING_NAMES = 3 };   // of the resource names, those whose owner closes something
enum { VERDICTS = 1 << 10 };  // a cache: two classes in one slot only cost time

struct making {
  struct ff_immortal *out;
  // A debug build of the interpreter asserts that a string which is not interned for good is not immortal. Asked for at
  // run time: such a build loads extensions made for the ordinary one.
  bool debug;
  bool again;  // not the first time in this process: what is immortal has been here
  PyObject *resource_names[6];
  PyObject *sizeof_name, *spec_name;
  struct verdict verdicts[VERDICTS];
  struct ff_registries registries;
};

static bool made_before;

// By its class alone. Looks into the classes' dicts: a metaclass might answer an attribute access with code of its own.
static bool class_has_method(struct making *making, PyTypeObject *type, size_t first, size_t end) {
  for (size_t i = first; i < end; i++) {
    // A field that happens to have the name, such as the release of a version, is no method.
    PyObject *found = _PyType_Lookup(type, making->resource_names[i]);
    if (found != NULL && PyCallable_Check(found)) return true;
  }
  return false;
}

// Its death is what closes something, or what somebody hears of.
static bool class_closes(struct making *making, PyTypeObject *type) {
  return type->tp_finalize != NULL || type->tp_del != NULL || class_has_method(making, type, 0, CLOSING_NAMES);
}

static bool class_owns_resource(struct making *making, PyTypeObject *type) {
  for (PyTypeObject *base = type; base != NULL; base = base->tp_base) {
    if (strcmp(base->tp_name, "_thread._local") == 0) return true;
  }
  return class_has_method(making, type, CLOSING_NAMES, Py_ARRAY_LENGTH(making->resource_names));
}

static const struct verdict *verdict_on(struct making *making, PyTypeObject *type) {
  struct verdict *verdict = &making->verdicts[((size_t)type >> 4) * 2654435761u % VERDICTS];
  if (verdict->type == type) return verdict;
  // Instances of the classes below hold more than their struct, in tables that belong to nobody else.
  bool sized = type == &PyDict_Type || type == &PySet_Type || type == &PyFrozenSet_Type || type == &PyList_Type ||
               type == &PyLong_Type || type == &PyCode_Type || type == &PyUnicode_Type;
  bool closes = !PyType_IsSubtype(type, &PyType_Type) && class_closes(making, type);
  *verdict = (struct verdict){
      .type = type,
      .dies = closes || (!PyType_IsSubtype(type, &PyType_Type) && class_owns_resource(making, type)),
      .closes = closes,
      .sized = sized,
      .size_of = sized ? _PyType_Lookup(type, making->sizeof_name) : NULL,
  };
  return verdict;
}

static bool is_definition(PyObject *object) {
  return PyType_Check(object) || PyFunction_Check(object) || PyModule_Check(object);
}

// Somebody may wait for the death of this object.
static bool has_weak_references(PyObject *object) {
  PyTypeObject *type = Py_TYPE(object);
  if (!PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE) || type->tp_weaklistoffset == 0) return false;
  return *(PyObject **)((char *)object + type->tp_weaklistoffset) != NULL;
}

static bool must_go_on_dying(struct making *making, PyObject *object) {
  if (is_definition(object)) return false;
  if (PyWeakref_Check(object)) return !is_definition(((PyWeakReference *)object)->wr_object);
  return PyFrame_Check(object) || PyGen_Check(object) || PyCoro_CheckExact(object) || PyAsyncGen_CheckExact(object) ||
         PyTraceBack_Check(object) || PyExceptionInstance_Check(object) || PyContext_CheckExact(object) ||
         PyContextToken_CheckExact(object) || verdict_on(making, Py_TYPE(object))->dies ||
         (has_weak_references(object) && !ff_registries_note(&making->registries, object));
}

enum { FEW = 64, FEW_ATTRIBUTES = 1 << 10 };

struct holder {
  struct making *making;
  bool is_part;  // of the one that is looked at: no further
};

static bool is_small_container(PyObject *object) {
  if (PyDict_CheckExact(object)) return PyDict_GET_SIZE(object) <= FEW_ATTRIBUTES;
  return (PyTuple_CheckExact(object) || PyList_CheckExact(object)) && Py_SIZE(object) <= FEW;
}

// A visitproc: not 0 ends the traversal.
static int is_held_resource(PyObject *object, void *argument) {
  const struct holder *holder = argument;
  if (object == NULL || is_definition(object)) return 0;
  if (verdict_on(holder->making, Py_TYPE(object))->closes) return 1;
  // An object keeps its attributes in a dict, and a partial function its arguments in a tuple.
  if (holder->is_part || !is_small_container(object)) return 0;
  struct holder within = {holder->making, true};
  return Py_TYPE(object)->tp_traverse(object, is_held_resource, &within);
}

static bool holds_resource(struct making *making, PyObject *object) {
  traverseproc traverse = Py_TYPE(object)->tp_traverse;
  if (traverse == NULL || !PyObject_IS_GC(object) || is_definition(object)) return false;
  // A module keeps its dict, whatever is in there.
  if (PyDict_CheckExact(object)) {
    int is_module = PyDict_Contains(object, making->spec_name);
    if (is_module < 0) PyErr_Clear();
    if (is_module > 0) return false;
  }
  struct holder holder = {making, false};
  return traverse(object, is_held_resource, &holder) != 0;
}

static size_t size_of(const struct verdict *verdict, PyObject *object) {
  PyTypeObject *type = Py_TYPE(object);
  size_t size = 0;
  if (PyObject_IS_GC(object)) size += 2 * sizeof(void *);
  if (PyType_HasFeature(type, Py_TPFLAGS_PREHEADER)) size += 2 * sizeof(void *);
  if (verdict->size_of != NULL) {
    PyObject *asked = PyObject_CallOneArg(verdict->size_of, object);
    size_t own = asked != NULL ? PyLong_AsSize_t(asked) : 0;
    Py_XDECREF(asked);
    if (!PyErr_Occurred()) return size + own;
    PyErr_Clear();
  }
  // The sign of ob_size says something else than a length in some types.
  Py_ssize_t items = type->tp_itemsize != 0 ? Py_ABS(Py_SIZE(object)) : 0;
  return size + (size_t)type->tp_basicsize + (size_t)items * (size_t)type->tp_itemsize;
}

// What children would compute and store in here.
static void compute_caches(struct making *making, PyObject *object) {
  if (PyUnicode_CheckExact(object) || PyBytes_CheckExact(object)) {
    making->out->hashed++;
    if (PyObject_Hash(object) == -1) PyErr_Clear();
  } else if (PyType_Check(object)) {
    making->out->versions += PyUnstable_Type_AssignVersionTag((PyTypeObject *)object) != 0;
    ff_keys_settle((PyTypeObject *)object);
  }
}

// An ff_walk_meet.
static bool meet(PyObject *object, void *argument) {
  struct making *making = argument;
  if (_Py_IsImmortal(object)) {
    // A static class of an extension is immortal from the beginning, and what it refers to is not.
    if (making->again) return PyType_Check(object) && !PyType_HasFeature((PyTypeObject *)object, Py_TPFLAGS_HEAPTYPE);
    compute_caches(making, object);
    // Entries of a registry die with what they are for, however long it is immortal itself.
    return ff_registries_know(&making->registries, object) && !ff_registries_meet(&making->registries, object);
  }
  if (making->debug && PyUnicode_Check(object)) return false;
  if (must_go_on_dying(making, object)) {
    making->out->left_alone++;
    return false;
  }
  bool is_table = ff_registries_meet(&making->registries, object);
  if (holds_resource(making, object)) {
    making->out->left_alone++;
    return !is_table && !making->again;  // what an old one holds by now is data
  }
  compute_caches(making, object);
  making->out->bytes += size_of(verdict_on(making, Py_TYPE(object)), object);
  making->out->objects++;
  FF_PY_MAKE_IMMORTAL(object);
  return !is_table;
}

// What is new: modules, and functions and classes in modules that have been here before. Of those modules the data is
// left alone: it changes all the time, and what it is today would stay for good, again at each run.
static int look_for_new(struct ff_walk *walk, PyObject *modules) {
  PyObject *module, *name, *member;
  Py_ssize_t at = 0;
  int rc = 0;
  while (rc == 0 && PyDict_Next(modules, &at, &name, &module)) {
    bool is_old = _Py_IsImmortal(module) && PyModule_Check(module);
    rc = ff_walk_from(walk, name);
    if (rc == 0) rc = ff_walk_from(walk, module);
    Py_ssize_t in = 0;
    while (is_old && rc == 0 && PyDict_Next(PyModule_GetDict(module), &in, &name, &member)) {
      if (is_definition(member)) rc = ff_walk_from(walk, member);
    }
  }
  return rc;
}

bool ff_immortal_supported(void) { return true; }

bool ff_immortal_made(void) { return made_before; }

int ff_immortal_make(struct ff_immortal *out, bool afresh) {
  static const char *const names[] = {"close",   "fileno",   "shutdown",
                                      "release", "__exit__", "__aexit__"};  // see CLOSING_NAMES
  *out = (struct ff_immortal){0};
  PyObject *modules = PyImport_GetModuleDict();
  struct making *making = PyMem_RawCalloc(1, sizeof *making);
  int rc = making != NULL && modules != NULL ? 0 : -ENOMEM;
  if (rc == 0) {
    making->out = out;
    making->again = made_before && !afresh;
    making->debug = PySys_GetObject("gettotalrefcount") != NULL;
    making->sizeof_name = PyUnicode_InternFromString("__sizeof__");
    making->spec_name = PyUnicode_InternFromString("__spec__");
    if (making->sizeof_name == NULL || making->spec_name == NULL) rc = -ENOMEM;
    if (ff_registries_init(&making->registries) < 0) rc = -ENOMEM;
    for (size_t i = 0; i < Py_ARRAY_LENGTH(names); i++) {
      making->resource_names[i] = PyUnicode_InternFromString(names[i]);
      if (making->resource_names[i] == NULL) rc = -ENOMEM;
    }
  }
  struct ff_walk walk;
  if (rc == 0) rc = ff_walk_init(&walk, meet, making);
  if (rc == 0) {
    rc = making->again ? look_for_new(&walk, modules) : ff_walk_from(&walk, modules);
    PyObject *later = making->registries.later;
    for (Py_ssize_t i = 0; rc == 0 && i < PyList_GET_SIZE(later); i++)
      rc = ff_walk_from(&walk, PyList_GET_ITEM(later, i));
    ff_walk_fini(&walk);
    made_before = true;
  }
  if (making != NULL) {
    Py_XDECREF(making->sizeof_name);
    Py_XDECREF(making->spec_name);
    ff_registries_fini(&making->registries);
    for (size_t i = 0; i < Py_ARRAY_LENGTH(names); i++) Py_XDECREF(making->resource_names[i]);
  }
  PyMem_RawFree(making);
  if (rc == 0) return 0;
  if (!PyErr_Occurred()) PyErr_NoMemory();
  return -1;
}

size_t ff_immortal_keep(PyObject *objects) {
  size_t made = 0;
  bool debug = PySys_GetObject("gettotalrefcount") != NULL;
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(objects); i++) {
    PyObject *object = PyList_GET_ITEM(objects, i);
    if (_Py_IsImmortal(object) || (debug && PyUnicode_Check(object))) continue;
    FF_PY_MAKE_IMMORTAL(object);
    made++;
  }
  return made;
}

#else

bool ff_immortal_supported(void) { return false; }

size_t ff_immortal_keep(PyObject *objects) {
  (void)objects;
  return 0;
}

bool ff_immortal_made(void) { return false; }

int ff_immortal_make(struct ff_immortal *out, bool afresh) {
  (void)afresh;
  *out = (struct ff_immortal){0};
  PyErr_SetString(PyExc_NotImplementedError, "this interpreter has no immortal objects");
  return -1;
}

#endif
