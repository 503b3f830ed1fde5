// SPDX-License-Identifier: Apache-2.0
//
// Shared keys that instances do not write to.
//
// The names of an instance's attributes are kept once, with its class (PEP 412), in a block of some 800 bytes. Each new
// instance writes there twice. It takes one from the room for further names, until one is left: who has seen thirty
// instances knows the names. And a dict of an instance's attributes counts as a reference, as if the keys were an
// object. In a child both copy a page for a class.
//
// The count has a value of its own that nobody writes, for the keys of empty dicts, since 3.12. It is read there and
// not written down here, for 3.14 has another than 3.12. Whoever gives it to keys must know that they are never freed.
//
// The room is set to one at once where a class has had two instances, which showed their names. That is what the
// interpreter would arrive at. An instance with names that were never seen so far has one of them here and the rest, as
// in a class of many instances, in a dict of its own. That there are names says nothing: since 3.13 the compiler's are
// there from the beginning.

#include "py/keys.h"

#if FF_PY_IMMORTAL

#include "py/layout.h"

// SHARED_KEYS_MAX_SIZE in pycore_dict.h, 3.11 to 3.14: the room of a new class. A name takes one of it, and an
// instance.
enum { ROOM = 30, ENOUGH_INSTANCES = 2 };

// 0 where the keys of empty dicts are counted like all others.
static Py_ssize_t immortal_count(void) {
  static Py_ssize_t known = -1;
  if (known != -1) return known;
  PyObject *first = PyDict_New();
  struct ff_keys *keys = first != NULL ? (struct ff_keys *)((PyDictObject *)first)->ma_keys : NULL;
  Py_ssize_t before = keys != NULL ? keys->references : 0;
  PyObject *second = keys != NULL ? PyDict_New() : NULL;
  bool same = second != NULL && (struct ff_keys *)((PyDictObject *)second)->ma_keys == keys;
  known = same && keys->references == before ? before : 0;
  Py_XDECREF(first);
  Py_XDECREF(second);
  PyErr_Clear();
  return known;
}

bool ff_keys_settle(PyTypeObject *type) {
  if (!PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE)) return false;
  struct ff_keys *keys = (struct ff_keys *)((PyHeapTypeObject *)type)->ht_cached_keys;
  if (keys == NULL || immortal_count() == 0 || keys->references == immortal_count()) return false;
  keys->references = immortal_count();
  Py_ssize_t instances = ROOM - keys->entries - keys->usable;
  if (keys->entries > 0 && instances >= ENOUGH_INSTANCES && keys->usable > 1) keys->usable = 1;
  return true;
}

#else

bool ff_keys_settle(PyTypeObject *type) {
  (void)type;
  return false;
}

#endif
