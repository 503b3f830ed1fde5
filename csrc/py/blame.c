// SPDX-License-Identifier: Apache-2.0
//
// From changed bytes to causes.
//
// Each changed word is looked up in the census of objects; what is of no object, in the pools of pymalloc and in the
// data segments of the loaded libraries. A word of an object whose type pointer changed too is not the object's doing:
// the object was put there after the start, in memory that was free. The same goes for a table whose owner's pointer to
// it changed.
//
// What it cannot tell: an object that died and one of the same type that took its place; the two have the same type
// pointer, and count as one object that changed. And why a page without a changed byte was written: nearly always,
// reference counts went up and down again.

#include "py/blame.h"

#include <errno.h>
#include <link.h>
#include <string.h>
#include <sys/mman.h>

#include "py/census.h"
#include "py/pool.h"

struct segment {
  uintptr_t start, end;
  const char *name;
};

struct owner {
  const void *key;  // NULL for an unused slot
  enum ff_cause cause;
  bool is_object;  // else a library's name
  int64_t bytes, pages;
  uint64_t last_page;
};

enum { SEGMENTS = 4096, OWNERS = 1 << 16 };

struct sum {
  int64_t pages, touched, alone, bytes;
};

// All of it in one mapping of its own.
struct judge {
  const struct ff_witness_findings *findings;
  struct ff_census census;
  struct sum sums[FF_CAUSES];
  struct ff_pool pool;
  struct segment segments[SEGMENTS];
  size_t segments_count;
  struct owner owners[OWNERS];
  size_t owners_count;
};

static int note_library(struct dl_phdr_info *info, size_t size, void *argument) {
  (void)size;
  struct judge *judge = argument;
  for (int i = 0; i < info->dlpi_phnum && judge->segments_count < SEGMENTS; i++) {
    const ElfW(Phdr) *header = &info->dlpi_phdr[i];
    if (header->p_type != PT_LOAD || !(header->p_flags & PF_W)) continue;
    uintptr_t start = info->dlpi_addr + header->p_vaddr;
    judge->segments[judge->segments_count++] = (struct segment){start, start + header->p_memsz, info->dlpi_name};
  }
  return 0;
}

static const struct segment *segment_at(const struct judge *judge, uintptr_t address) {
  for (size_t i = 0; i < judge->segments_count; i++) {
    if (address >= judge->segments[i].start && address < judge->segments[i].end) return &judge->segments[i];
  }
  return NULL;
}

// Whether the byte changed since the start; false on a page that is still shared.
static bool changed(const struct judge *judge, uintptr_t address) {
  size_t i = ff_census_page(judge->findings, address);
  if (i == judge->findings->pages) return false;
  const struct ff_witness_page *page = ff_witness_page(judge->findings, i);
  size_t word = (address - page->address) / 8;
  return address >= page->address && (page->changed[word / 8] >> (word % 8 * 8) & 0xff) != 0;
}

struct verdict {
  enum ff_cause cause;
  const void *key;
  bool is_object;
};

static struct verdict of_type(enum ff_cause cause, PyTypeObject *type) { return (struct verdict){cause, type, true}; }

// Whether this word holds the version by which the interpreter specializes its uses.
static bool is_version(const struct ff_span *span, uintptr_t address) {
  uintptr_t object = (uintptr_t)span->object, at = 0;
  if (span->kind == FF_SPAN_TYPE) at = object + offsetof(PyTypeObject, tp_version_tag);
#if PY_VERSION_HEX >= 0x030B0000
  if (span->kind == FF_SPAN_OBJECT && PyFunction_Check(span->object))
    at = object + offsetof(PyFunctionObject, func_version);
  // Of a dict's keys: in the word behind their reference count.
  if (span->kind == FF_SPAN_TABLE && (PyDict_Check(span->object) || PyType_Check(span->object))) at = span->start + 8;
#endif
  return at != 0 && address == at - at % 8;
}

static struct verdict judge_span(const struct judge *judge, const struct ff_span *span, uintptr_t address) {
  if (span->kind == FF_SPAN_STACK) return (struct verdict){FF_CAUSE_STACK, NULL, false};
  PyTypeObject *type = Py_TYPE(span->object);
  if (span->anchor != 0 && changed(judge, span->anchor)) return of_type(FF_CAUSE_NEW, type);
  if (is_version(span, address)) {
    PyTypeObject *named = span->kind == FF_SPAN_TYPE ? (PyTypeObject *)span->object : type;
    return of_type(FF_CAUSE_VERSION, named);
  }
  if (span->kind == FF_SPAN_TABLE) return of_type(FF_CAUSE_TABLE, type);
  uintptr_t object = (uintptr_t)span->object;
  if (span->anchor != 0 && address == object) return of_type(FF_CAUSE_REFCOUNT, type);
  if (span->collected && address < object && address >= object - 16) return of_type(FF_CAUSE_COLLECTOR, type);
  if (span->kind == FF_SPAN_CODE)
    return (struct verdict){FF_CAUSE_CODE, ((PyCodeObject *)span->object)->co_filename, true};
  // A type's own name says more than that of its metaclass.
  if (span->kind == FF_SPAN_TYPE) return of_type(FF_CAUSE_TYPE, (PyTypeObject *)span->object);
  return of_type(FF_CAUSE_OBJECT, type);
}

// An object that the walk did not reach, known by its type pointer: a string that only C code refers to.
static bool judge_unreached(struct judge *judge, uintptr_t block, uintptr_t address, struct verdict *verdict) {
  const struct ff_pool *pool = &judge->pool;
  for (uintptr_t object = block; object <= block + 32 && object + 16 <= block + pool->block_size; object += 16) {
    const uintptr_t *head = (const uintptr_t *)(pool->bytes + (object - pool->start));
    if (head[0] == 0 || !ff_census_is_type(&judge->census, head[1])) continue;
    PyTypeObject *type = (PyTypeObject *)head[1];
    struct ff_span span = {block,      block + pool->block_size, (PyObject *)object,
                           object + 8, FF_SPAN_OBJECT,           object > block};
    if (type == &PyCode_Type) span.kind = FF_SPAN_CODE;
    *verdict = judge_span(judge, &span, address);
    if (verdict->cause == FF_CAUSE_CODE) *verdict = of_type(FF_CAUSE_CODE, type);
    return true;
  }
  return false;
}

static struct verdict judge_word(struct judge *judge, uintptr_t address, enum ff_kind kind) {
  const struct ff_span *span = ff_census_before(&judge->census, address);
  if (span != NULL && address < span->end) return judge_span(judge, span, address);
  if (kind == FF_KIND_ANONYMOUS) {
    struct ff_pool *pool = &judge->pool;
    ff_pool_look(pool, address);
    size_t offset = address - pool->start;
    if (pool->block_size != 0) {
      if (offset < FF_POOL_HEADER) return (struct verdict){FF_CAUSE_ALLOCATOR, NULL, false};
      size_t block = (offset - FF_POOL_HEADER) / pool->block_size;
      uintptr_t start = pool->start + FF_POOL_HEADER + block * pool->block_size;
      if (start + pool->block_size > pool->start + FF_POOL_SIZE || pool->free[block])
        return (struct verdict){FF_CAUSE_ALLOCATOR, NULL, false};
      // Of the same block: what follows an object's known size is its own too, such as inline attributes.
      if (span != NULL && span->start >= start) return judge_span(judge, span, address);
      struct verdict verdict;
      if (judge_unreached(judge, start, address, &verdict)) return verdict;
      return (struct verdict){FF_CAUSE_MALLOC, NULL, false};
    }
  }
  const struct segment *segment = segment_at(judge, address);
  if (segment != NULL) return (struct verdict){FF_CAUSE_LIBRARY, segment->name, false};
  if (kind == FF_KIND_STACK) return (struct verdict){FF_CAUSE_STACK, NULL, false};
  return (struct verdict){kind == FF_KIND_FILE ? FF_CAUSE_OTHER : FF_CAUSE_MALLOC, NULL, false};
}

// Adds to the owner's sum; beyond 65,536 owners the sums of the causes stay right and owners are missing.
static void add_owner(struct judge *judge, const struct verdict *verdict, uint64_t page, int bytes) {
  if (verdict->key == NULL) return;
  size_t at = ((uintptr_t)verdict->key >> 4) * UINT64_C(0x9E3779B97F4A7C15) >> 48;
  for (size_t tries = 0; tries < OWNERS; tries++, at++) {
    struct owner *owner = &judge->owners[at % OWNERS];
    if (owner->key == NULL && judge->owners_count++ < OWNERS - 1)
      *owner = (struct owner){.key = verdict->key, .cause = verdict->cause, .is_object = verdict->is_object};
    if (owner->key != verdict->key || owner->cause != verdict->cause) continue;
    owner->bytes += bytes;
    owner->pages += owner->last_page != page;
    owner->last_page = page;
    return;
  }
}

// Nothing says which counter on an unchanged page went up and down. What has one is named: every object on the page
// that is not immortal.
static void name_suspects(struct judge *judge, const struct ff_witness_page *page) {
  const void *last = NULL;
  for (uintptr_t address = page->address; address < page->address + judge->findings->page_size; address += 16) {
    struct verdict verdict = judge_word(judge, address, page->kind);
    if (verdict.cause != FF_CAUSE_REFCOUNT || verdict.key == NULL || verdict.key == last) continue;
    if (FF_PY_IS_IMMORTAL((PyObject *)address)) continue;
    last = verdict.key;
    verdict.cause = FF_CAUSE_UNCHANGED;
    add_owner(judge, &verdict, page->address, 0);
  }
}

static void judge_page(struct judge *judge, const struct ff_witness_page *page) {
  if (page->bytes == 0) name_suspects(judge, page);
  if (page->bytes <= 0) {
    struct sum *sum = &judge->sums[page->bytes == 0 ? FF_CAUSE_UNCHANGED : FF_CAUSE_UNKNOWN];
    sum->pages++, sum->touched++, sum->alone++;
    return;
  }
  int bytes[FF_CAUSES] = {0};
  for (size_t word = 0; word < judge->findings->page_size / 8; word++) {
    int count = __builtin_popcountll(page->changed[word / 8] >> (word % 8 * 8) & 0xff);
    if (count == 0) continue;
    struct verdict verdict = judge_word(judge, page->address + word * 8, page->kind);
    bytes[verdict.cause] += count;
    add_owner(judge, &verdict, page->address, count);
  }
  int main_cause = 0, causes = 0;
  for (int cause = 0; cause < FF_CAUSES; cause++) {
    if (bytes[cause] > bytes[main_cause]) main_cause = cause;
    judge->sums[cause].bytes += bytes[cause];
    judge->sums[cause].touched += bytes[cause] > 0;
    causes += bytes[cause] > 0;
  }
  judge->sums[main_cause].pages++;
  judge->sums[main_cause].alone += causes == 1;
}

static PyObject *owners_list(const struct judge *judge) {
  PyObject *list = PyList_New(0);
  for (size_t i = 0; list != NULL && i < OWNERS; i++) {
    const struct owner *owner = &judge->owners[i];
    if (owner->key == NULL) continue;
    PyObject *key;
    if (owner->is_object) {
      key = (PyObject *)owner->key;
      Py_INCREF(key);
    } else {
      key = PyUnicode_DecodeFSDefault(owner->key);
    }
    PyObject *entry =
        key == NULL ? NULL
                    : Py_BuildValue("(iNLL)", (int)owner->cause, key, (long long)owner->pages, (long long)owner->bytes);
    if (entry == NULL || PyList_Append(list, entry) < 0) Py_CLEAR(list);
    Py_XDECREF(entry);
  }
  return list;
}

static PyObject *result(const struct judge *judge) {
  PyObject *causes = PyTuple_New(FF_CAUSES);
  for (int i = 0; causes != NULL && i < FF_CAUSES; i++) {
    const struct sum *sum = &judge->sums[i];
    PyObject *entry = Py_BuildValue("(LLLL)", (long long)sum->pages, (long long)sum->touched, (long long)sum->alone,
                                    (long long)sum->bytes);
    if (entry == NULL)
      Py_CLEAR(causes);
    else
      PyTuple_SET_ITEM(causes, i, entry);
  }
  PyObject *owners = causes != NULL ? owners_list(judge) : NULL;
  if (owners == NULL) {
    Py_XDECREF(causes);
    return NULL;
  }
  return Py_BuildValue("(NNO)", causes, owners, judge->census.complete ? Py_True : Py_False);
}

PyObject *ff_blame_judge(const struct ff_witness_findings *findings, PyObject *tracked, Py_ssize_t frozen) {
  struct judge *judge =
      mmap(NULL, sizeof *judge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (judge == MAP_FAILED) return PyErr_NoMemory();
  judge->findings = findings;
  dl_iterate_phdr(note_library, judge);
  PyObject *found = NULL;
  if (ff_census_init(&judge->census, findings, tracked, frozen) < 0) {
    PyErr_NoMemory();
  } else {
    for (size_t i = 0; i < findings->pages; i++) judge_page(judge, ff_witness_page(findings, i));
    found = result(judge);
    ff_census_fini(&judge->census);
  }
  munmap(judge, sizeof *judge);
  return found;
}
