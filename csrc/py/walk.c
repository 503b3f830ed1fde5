// SPDX-License-Identifier: Apache-2.0
//
// Every object that can be reached from another one, each once.
//
// The collector's own way of asking an object for its references, tp_traverse, is the only one that extension types
// offer. It leaves out what cannot be part of a cycle, and that is half of what children touch: the keys of dicts, the
// constants and names in code, the names of classes. Those are visited by hand here.
//
// The walk reads and writes no object, so it unshares no page by itself. Its own bookkeeping lies in mappings of its
// own: taken from the heap it would leave holes there that children fill later.
//
// What it cannot see: references that an extension type keeps in C and does not show to the collector, and whatever is
// reachable only from a running frame, which the caller does not pass as a root.

#include "py/walk.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

enum { FIRST_SLOTS = 1 << 16, FIRST_ROOM = 1 << 14 };

static void *map_pointers(size_t count) {
  void *found = mmap(NULL, count * sizeof(PyObject *), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return found == MAP_FAILED ? NULL : found;
}

static size_t slot_of(PyObject *const *table, size_t slots, PyObject *object) {
  // Fibonacci hashing: addresses are multiples of 16 and come in runs.
  size_t at = (size_t)(((uintptr_t)object >> 4) * UINT64_C(0x9E3779B97F4A7C15) >> 20) & (slots - 1);
  while (table[at] != NULL && table[at] != object) at = (at + 1) & (slots - 1);
  return at;
}

static bool grow_met(struct ff_walk *walk) {
  size_t slots = walk->slots * 2;
  PyObject **table = map_pointers(slots);
  if (table == NULL) return false;
  for (size_t i = 0; i < walk->slots; i++) {
    if (walk->met[i] != NULL) table[slot_of(table, slots, walk->met[i])] = walk->met[i];
  }
  munmap(walk->met, walk->slots * sizeof(PyObject *));
  walk->met = table;
  walk->slots = slots;
  return true;
}

static bool grow_open(struct ff_walk *walk) {
  size_t size = walk->room * sizeof(PyObject *);
  void *moved = mremap(walk->open, size, size * 2, MREMAP_MAYMOVE);
  if (moved == MAP_FAILED) return false;
  walk->open = moved;
  walk->room *= 2;
  return true;
}

// A visitproc: 0 goes on, anything else ends the traversal.
static int visit(PyObject *object, void *argument) {
  struct ff_walk *walk = argument;
  if (object == NULL) return 0;
  size_t at = slot_of(walk->met, walk->slots, object);
  if (walk->met[at] == object) return 0;
  if ((walk->used + 1) * 2 > walk->slots) {
    if (!grow_met(walk)) return walk->error = -ENOMEM;
    at = slot_of(walk->met, walk->slots, object);
  }
  walk->met[at] = object;
  walk->used++;
  if (!walk->meet(object, walk->argument)) return 0;
  if (walk->depth == walk->room && !grow_open(walk)) return walk->error = -ENOMEM;
  walk->open[walk->depth++] = object;
  return 0;
}

static void visit_code(struct ff_walk *walk, PyCodeObject *code) {
  visit(code->co_consts, walk);
  visit(code->co_names, walk);
  visit(code->co_filename, walk);
  visit(code->co_name, walk);
#if PY_VERSION_HEX >= 0x030B0000
  visit(code->co_exceptiontable, walk);
  visit(code->co_localsplusnames, walk);
  visit(code->co_localspluskinds, walk);
  visit(code->co_qualname, walk);
  visit(code->co_linetable, walk);
#else
  visit(code->co_code, walk);
  visit(code->co_varnames, walk);
  visit(code->co_freevars, walk);
  visit(code->co_cellvars, walk);
  visit(code->co_linetable, walk);
#endif
}

static void visit_type(struct ff_walk *walk, PyTypeObject *type) {
  if (PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE)) {
    PyHeapTypeObject *heap = (PyHeapTypeObject *)type;
    visit(heap->ht_name, walk);
    visit(heap->ht_qualname, walk);
    visit(heap->ht_slots, walk);
    return;  // the rest by tp_traverse
  }
  // type's tp_traverse refuses static types. Those of the interpreter keep their dicts elsewhere since 3.12.
#if PY_VERSION_HEX >= 0x030C0000
  PyObject *dict = PyType_GetDict(type);
  visit(dict, walk);
  Py_XDECREF(dict);  // the type has it still
#else
  visit(type->tp_dict, walk);
#endif
  visit(type->tp_mro, walk);
  visit(type->tp_bases, walk);
  visit((PyObject *)type->tp_base, walk);
}

// A definition's weak reference without a callback is one for all who ask, and first in its list. Lists of subclasses
// hold it, which tp_traverse leaves out.
static void visit_weak_reference(struct ff_walk *walk, PyObject *definition) {
  PyObject *first = *(PyObject **)((char *)definition + Py_TYPE(definition)->tp_weaklistoffset);
  if (first != NULL && PyWeakref_CheckRefExact(first) && ((PyWeakReference *)first)->wr_callback == NULL)
    visit(first, walk);
}

static void visit_references(struct ff_walk *walk, PyObject *object) {
  PyTypeObject *type = Py_TYPE(object);
  visit((PyObject *)type, walk);
  bool is_heap_type = PyType_Check(object) && PyType_HasFeature((PyTypeObject *)object, Py_TPFLAGS_HEAPTYPE);
  if (is_heap_type || PyFunction_Check(object)) visit_weak_reference(walk, object);
  if (PyType_Check(object)) visit_type(walk, (PyTypeObject *)object);
  if (PyCode_Check(object)) {
    visit_code(walk, (PyCodeObject *)object);
    return;
  }
  if (PyDict_Check(object)) {
    PyObject *key;
    Py_ssize_t at = 0;
    while (PyDict_Next(object, &at, &key, NULL)) visit(key, walk);
  }
  bool is_static_type = PyType_Check(object) && !is_heap_type;
  if (PyObject_IS_GC(object) && type->tp_traverse != NULL && !is_static_type) type->tp_traverse(object, visit, walk);
}

int ff_walk_init(struct ff_walk *walk, ff_walk_meet meet, void *argument) {
  *walk = (struct ff_walk){.meet = meet, .argument = argument, .slots = FIRST_SLOTS, .room = FIRST_ROOM};
  walk->met = map_pointers(FIRST_SLOTS);
  walk->open = map_pointers(FIRST_ROOM);
  if (walk->met != NULL && walk->open != NULL) return 0;
  ff_walk_fini(walk);
  return -ENOMEM;
}

int ff_walk_from(struct ff_walk *walk, PyObject *root) {
  visit(root, walk);
  while (walk->depth > 0 && walk->error == 0) visit_references(walk, walk->open[--walk->depth]);
  return walk->error;
}

void ff_walk_fini(struct ff_walk *walk) {
  if (walk->met != NULL) munmap(walk->met, walk->slots * sizeof(PyObject *));
  if (walk->open != NULL) munmap(walk->open, walk->room * sizeof(PyObject *));
  *walk = (struct ff_walk){0};
}
