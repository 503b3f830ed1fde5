// SPDX-License-Identifier: Apache-2.0
//
// The census of the objects on some pages.
//
// Whoever wants to say what was written at an address must know what lives there. Nothing in CPython answers that, so
// all live objects are walked and those on the pages in question are kept, with the tables that dicts, sets and lists
// have elsewhere. Every object that is not reached by the walk is either a leaf that only C code refers to, or garbage.
//
// The collector's lists are the roots. gc.get_objects() leaves out the frozen ones, and so does
// PyUnstable_GC_VisitObjects before 3.13; gc.unfreeze() would change what the judged process does next. So the ring of
// the frozen objects is followed by hand from one of them: each object's header holds the address of the next one's.
// One node of the ring is not an object but the list's head, behind which two zeros stand where an object has its
// reference count (struct gc_generation: threshold and count, never set for the permanent generation).
//
// Sizes (py/layout.h) need not be exact for small objects: the caller knows the blocks of pymalloc.

#include "py/census.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "py/layout.h"
#include "py/walk.h"

enum { FIRST = 1 << 14 };

size_t ff_census_page(const struct ff_witness_findings *pages, uintptr_t address) {
  size_t low = 0, high = pages->pages;
  address -= address % pages->page_size;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (ff_witness_page(pages, middle)->address < address)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

// Makes room for one more element in an array of its own mapping.
static bool grow(void **array, size_t count, size_t *room, size_t element) {
  if (count < *room) return true;
  size_t size = *room * element;
  void *moved = *room == 0 ? mmap(NULL, FIRST * element, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
                           : mremap(*array, size, size * 2, MREMAP_MAYMOVE);
  if (moved == MAP_FAILED) return false;
  *array = moved;
  *room = *room == 0 ? FIRST : *room * 2;
  return true;
}

static size_t filter_bit(uintptr_t page) { return (size_t)(page * UINT64_C(0x9E3779B97F4A7C15) >> 46); }

// Most objects lie on no page in question: a filter that fits in the cache says so without a search.
static bool may_matter(const struct ff_census *census, const struct ff_span *span) {
  uintptr_t first = span->start / census->pages->page_size, last = (span->end - 1) / census->pages->page_size;
  for (uintptr_t page = first; page <= last; page++) {
    size_t bit = filter_bit(page);
    if (page - first > 8 || census->filter[bit / 8] >> (bit % 8) & 1) return true;
  }
  return false;
}

static void fill_filter(struct ff_census *census) {
  for (size_t i = 0; i < census->pages->pages; i++) {
    size_t bit = filter_bit(ff_witness_page(census->pages, i)->address / census->pages->page_size);
    census->filter[bit / 8] |= (uint8_t)(1 << bit % 8);
  }
}

static void add(struct ff_census *census, struct ff_span span) {
  if (span.end <= span.start || !may_matter(census, &span)) return;
  size_t page = ff_census_page(census->pages, span.start);
  if (page == census->pages->pages || ff_witness_page(census->pages, page)->address >= span.end) return;
  if (!grow((void **)&census->spans, census->count, &census->room, sizeof span))
    census->error = -ENOMEM;
  else
    census->spans[census->count++] = span;
}

static void add_table(struct ff_census *census, PyObject *owner, const void *field, size_t size) {
  uintptr_t start = *(const uintptr_t *)field;
  if (start == 0) return;
  add(census, (struct ff_span){start, start + size, owner, (uintptr_t)field, FF_SPAN_TABLE, false});
}

static void add_tables(struct ff_census *census, PyObject *object) {
  if (PyDict_Check(object)) {
    PyDictObject *dict = (PyDictObject *)object;
    if (dict->ma_keys != NULL) add_table(census, object, &dict->ma_keys, ff_layout_keys_size(dict->ma_keys));
  } else if (PyList_Check(object)) {
    PyListObject *list = (PyListObject *)object;
    add_table(census, object, &list->ob_item, (size_t)list->allocated * sizeof(PyObject *));
  } else if (PyAnySet_Check(object)) {
    PySetObject *set = (PySetObject *)object;
    if (set->table != set->smalltable)
      add_table(census, object, &set->table, (size_t)(set->mask + 1) * sizeof(setentry));
  } else if (PyByteArray_Check(object)) {
    PyByteArrayObject *bytes = (PyByteArrayObject *)object;
    add_table(census, object, &bytes->ob_bytes, (size_t)bytes->ob_alloc);
  } else if (PyType_Check(object) && PyType_HasFeature((PyTypeObject *)object, Py_TPFLAGS_HEAPTYPE)) {
    PyHeapTypeObject *type = (PyHeapTypeObject *)object;
    if (type->ht_cached_keys != NULL)
      add_table(census, object, &type->ht_cached_keys, ff_layout_keys_size(type->ht_cached_keys));
  }
#if PY_VERSION_HEX < 0x030B0000
  if (PyCode_Check(object)) {  // what later versions keep inside the code object
    PyCodeObject *code = (PyCodeObject *)object;
    uintptr_t map = (uintptr_t)code->co_opcache_map, cache = (uintptr_t)code->co_opcache;
    size_t instructions = (size_t)PyBytes_GET_SIZE(code->co_code) / 2, entry = 32;
    if (map != 0) add(census, (struct ff_span){map, map + instructions, object, 0, FF_SPAN_CODE, false});
    if (cache != 0)
      add(census, (struct ff_span){cache, cache + code->co_opcache_size * entry, object, 0, FF_SPAN_CODE, false});
  }
#endif
}

static int by_start(const void *left, const void *right) {
  const struct ff_span *a = left, *b = right;
  return a->start < b->start ? -1 : a->start > b->start;
}

static int by_address(const void *left, const void *right) {
  uintptr_t a = *(const uintptr_t *)left, b = *(const uintptr_t *)right;
  return a < b ? -1 : a > b;
}

// Keeps a few objects that the collector tracks and does not list: one of them is frozen.
static void look_for_frozen(struct ff_census *census, PyObject *object) {
#ifdef Py_GIL_DISABLED  // there is no list of frozen objects
  (void)census;
  (void)object;
#else
  if (census->candidates_count == FF_CENSUS_CANDIDATES || !PyObject_GC_IsTracked(object)) return;
  uintptr_t address = (uintptr_t)object;
  if (bsearch(&address, census->listed, census->listed_count, sizeof address, by_address) == NULL)
    census->candidates[census->candidates_count++] = object;
#endif
}

static bool meet(PyObject *object, void *argument) {
  struct ff_census *census = argument;
  enum ff_span_kind kind = FF_SPAN_OBJECT;
  if (PyType_Check(object)) {
    kind = FF_SPAN_TYPE;
    if (grow((void **)&census->types, census->types_count, &census->types_room, sizeof *census->types))
      census->types[census->types_count++] = (PyTypeObject *)object;
    else
      census->error = -ENOMEM;
  } else if (PyCode_Check(object)) {
    kind = FF_SPAN_CODE;
  }
  uintptr_t address = (uintptr_t)object;
  bool collected = PyObject_IS_GC(object);
  if (collected) look_for_frozen(census, object);
  uintptr_t anchor = (uintptr_t)&object->ob_type;
  add(census, (struct ff_span){address - ff_layout_before(object), address + ff_layout_size(object), object, anchor,
                               kind, collected});
  add_tables(census, object);
  return true;
}

static void add_stacks(struct ff_census *census) {
  PyThreadState *thread = PyInterpreterState_ThreadHead(PyInterpreterState_Get());
  for (; thread != NULL; thread = PyThreadState_Next(thread)) {
    uintptr_t start = (uintptr_t)thread;
    add(census, (struct ff_span){start, start + sizeof *thread, NULL, 0, FF_SPAN_STACK, false});
#if PY_VERSION_HEX >= 0x030B0000
    for (_PyStackChunk *chunk = thread->datastack_chunk; chunk != NULL; chunk = chunk->previous) {
      start = (uintptr_t)chunk;
      add(census, (struct ff_span){start, start + chunk->size, NULL, 0, FF_SPAN_STACK, false});
    }
#endif
  }
}

// The collector's header: two words, whose lowest two bits are flags.
static uintptr_t next_header(uintptr_t header) { return *(const uintptr_t *)header & ~(uintptr_t)3; }

// How many objects are in the ring of this one, the ring's head not counted; -1 where it is not as expected.
static Py_ssize_t count_ring(PyObject *from, Py_ssize_t most) {
  uintptr_t first = (uintptr_t)from - FF_LAYOUT_HEADER;
  Py_ssize_t objects = 1, heads = 0;
  for (uintptr_t at = next_header(first); at != first; at = next_header(at)) {
    if (at == 0 || objects > most) return -1;
    if (Py_REFCNT((PyObject *)(at + FF_LAYOUT_HEADER)) == 0)
      heads++;
    else
      objects++;
  }
  return heads == 1 ? objects : -1;
}

// Walks from all frozen objects, if the ring of this one is theirs.
static bool walk_frozen(struct ff_walk *walk, PyObject *from, Py_ssize_t frozen) {
  if (count_ring(from, frozen) != frozen) return false;
  uintptr_t first = (uintptr_t)from - FF_LAYOUT_HEADER;
  for (uintptr_t at = next_header(first); at != first; at = next_header(at)) {
    PyObject *object = (PyObject *)(at + FF_LAYOUT_HEADER);
    if (Py_REFCNT(object) != 0) ff_walk_from(walk, object);
  }
  return true;
}

static int list_tracked(struct ff_census *census, PyObject *tracked) {
  Py_ssize_t count = PyList_GET_SIZE(tracked);
  for (Py_ssize_t i = 0; i < count; i++) {
    if (!grow((void **)&census->listed, census->listed_count, &census->listed_room, sizeof *census->listed))
      return -ENOMEM;
    census->listed[census->listed_count++] = (uintptr_t)PyList_GET_ITEM(tracked, i);
  }
  qsort(census->listed, census->listed_count, sizeof *census->listed, by_address);
  return 0;
}

int ff_census_init(struct ff_census *census, const struct ff_witness_findings *pages, PyObject *tracked,
                   Py_ssize_t frozen) {
  *census = (struct ff_census){.pages = pages};
  struct ff_walk walk;
  int rc = ff_walk_init(&walk, meet, census);
  if (rc < 0) return rc;
  fill_filter(census);
  rc = list_tracked(census, tracked);
  ff_walk_from(&walk, PyImport_GetModuleDict());
  for (size_t i = 0; i < census->listed_count; i++) ff_walk_from(&walk, (PyObject *)census->listed[i]);
  census->complete = frozen == 0;
  for (size_t i = 0; i < census->candidates_count && !census->complete; i++)
    census->complete = walk_frozen(&walk, census->candidates[i], frozen);
  add_stacks(census);
  if (rc == 0) rc = walk.error < 0 ? walk.error : census->error;
  ff_walk_fini(&walk);
  if (rc < 0) {
    ff_census_fini(census);
    return rc;
  }
  qsort(census->spans, census->count, sizeof *census->spans, by_start);
  qsort(census->types, census->types_count, sizeof *census->types, by_address);
  return 0;
}

const struct ff_span *ff_census_before(const struct ff_census *census, uintptr_t address) {
  size_t low = 0, high = census->count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (census->spans[middle].start <= address)
      low = middle + 1;
    else
      high = middle;
  }
  return low > 0 ? &census->spans[low - 1] : NULL;
}

bool ff_census_is_type(const struct ff_census *census, uintptr_t address) {
  return bsearch(&address, census->types, census->types_count, sizeof address, by_address) != NULL;
}

void ff_census_fini(struct ff_census *census) {
  if (census->spans != NULL) munmap(census->spans, census->room * sizeof *census->spans);
  if (census->types != NULL) munmap(census->types, census->types_room * sizeof *census->types);
  if (census->listed != NULL) munmap(census->listed, census->listed_room * sizeof *census->listed);
  *census = (struct ff_census){0};
}
