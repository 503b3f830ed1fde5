// SPDX-License-Identifier: Apache-2.0
//
// Registries: WeakKeyDictionary and WeakValueDictionary.
//
// Libraries keep in them what they know of classes: SQLAlchemy its events, functools and abc what they dispatch to.
// Such a registry refers weakly to itself, to take out entries whose keys have died, and looks as if somebody waited
// for its own death. Nobody does, as long as that reference is the only one, and has only the one user.
//
// Its entries are of two kinds. Those for a class, a function or a module are for good where these are. The others must
// die with what they are for, and to walk into the table like into any other dict would keep their values. So only
// the entries for definitions are walked from, after the walk that met the registry: to visit them within would begin a
// walk in the middle of another.

#include "py/registry.h"

#if FF_PY_IMMORTAL

// Borrowed: who has the module has the class.
static PyTypeObject *class_named(const char *name) {
  PyObject *module = PyDict_GetItemString(PyImport_GetModuleDict(), "weakref");
  PyObject *found =
      module != NULL && PyModule_Check(module) ? PyDict_GetItemString(PyModule_GetDict(module), name) : NULL;
  return found != NULL && PyType_Check(found) ? (PyTypeObject *)found : NULL;
}

int ff_registries_init(struct ff_registries *registries) {
  registries->types[0] = class_named("WeakKeyDictionary");
  registries->types[1] = class_named("WeakValueDictionary");
  registries->count = 0;
  registries->later = PyList_New(0);
  return registries->later != NULL ? 0 : -1;
}

static bool is_registry(const struct ff_registries *registries, PyObject *object) {
  return Py_TYPE(object) == registries->types[0] || Py_TYPE(object) == registries->types[1];
}

static bool note_table(struct ff_registries *registries, PyObject *object) {
  PyObject *table = registries->count < FF_REGISTRIES ? PyObject_GetAttrString(object, "data") : NULL;
  if (table == NULL || !PyDict_CheckExact(table)) {
    Py_XDECREF(table);
    PyErr_Clear();
    return false;
  }
  registries->tables[registries->count++] = table;
  return true;
}

bool ff_registries_note(struct ff_registries *registries, PyObject *object) {
  if (!is_registry(registries, object)) return false;
  PyWeakReference *first = *(PyWeakReference **)((char *)object + Py_TYPE(object)->tp_weaklistoffset);
  // All who ask for a weak reference without a callback get the same one.
  if (first == NULL || first->wr_next != NULL || Py_REFCNT(first) != 1) return false;
  return note_table(registries, object);
}

bool ff_registries_know(struct ff_registries *registries, PyObject *object) {
  return !is_registry(registries, object) || note_table(registries, object);
}

static bool is_for_definition(PyObject *key_or_value) {
  if (!PyWeakref_Check(key_or_value)) return false;
  PyObject *object = ((PyWeakReference *)key_or_value)->wr_object;
  return PyType_Check(object) || PyFunction_Check(object) || PyModule_Check(object);
}

bool ff_registries_meet(struct ff_registries *registries, PyObject *dict) {
  if (!PyDict_CheckExact(dict)) return false;
  size_t at = 0;
  while (at < registries->count && registries->tables[at] != dict) at++;
  if (at == registries->count) return false;
  PyObject *key, *value;
  Py_ssize_t entry = 0;
  while (PyDict_Next(dict, &entry, &key, &value)) {
    if (!is_for_definition(key) && !is_for_definition(value)) continue;
    // Without memory the entry stays as mortal as it was.
    if (PyList_Append(registries->later, key) < 0 || PyList_Append(registries->later, value) < 0) PyErr_Clear();
  }
  return true;
}

void ff_registries_fini(struct ff_registries *registries) {
  while (registries->count > 0) Py_DECREF(registries->tables[--registries->count]);
  Py_CLEAR(registries->later);
}

#endif
