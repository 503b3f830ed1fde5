// SPDX-License-Identifier: Apache-2.0
//
// Draining glibc's heap.
//
// A heap that has lived has holes: free chunks between chunks in use. A child fills them first, for malloc prefers them
// to the top of the heap, and each hole filled copies a page that was shared and is otherwise still the parent's. So
// the parent takes all of them before it forks. What the child then allocates comes from the top: whole pages of its
// own, which it would have needed for its data in any case.
//
// How: allocate one size after the other, from large to small, until a chunk comes from the top. Only what malloc.h
// offers is used. The top begins where mallinfo's keepcost says, counted from the end of the heap; a chunk below that
// was a hole. Taking the large ones first cuts no hole into more pieces than need be, and takes bins, fast bins and the
// calling thread's tcache without knowing of any of them.
//
// Large chunks are given back at the end. A hole of several whole pages costs a child a copy where the top would have
// cost it a new page, the same bytes; only the pages at its two ends are shared with others. Holding it would keep the
// parent from ever using it.
//
// What it does not cover: arenas other than the main one, and the caches of other threads. Both belong to threads, and
// a child of fork has one thread, which allocates from the arena of the thread that forked. A heap that brk could not
// grow, which glibc then continues in mapped pieces, is drained up to the last piece only in part.
// Sources: malloc/malloc.c of glibc 2.36 (int_mallinfo, _int_malloc, tcache), malloc(3), mallinfo(3).

#include "os/heap.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

enum {
  STEP = 16,                 // malloc's alignment: no two sizes closer than this differ
  SMALL = 1040,              // up to here every size has a bin and a cache of its own
  RETURNED_PAGES = 256,      // more is given to the kernel again
  LARGEST_ASKED = 64 << 10,  // well below the size from which malloc maps memory
};

struct held {
  struct held *next;
};

static const char *base_name(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash == NULL ? path : slash + 1;
}

// As the C library itself counts, whoever may have put another mallinfo in front of it. glibc 2.33 has a version of
// size_t instead of int; of int's kind, read as unsigned, the size of the top is right up to 4 GB.
struct totals {
  size_t used, top;
};

static bool totals_of(void *libc_symbol_scope, struct totals *out) {
#ifdef __GLIBC__
#if __GLIBC_PREREQ(2, 33)
  struct mallinfo2 (*ask)(void) = NULL;
  void *found = dlsym(libc_symbol_scope, "mallinfo2");
#else
  struct mallinfo (*ask)(void) = NULL;
  void *found = dlsym(libc_symbol_scope, "mallinfo");
#endif
  if (found == NULL) return false;
  memcpy(&ask, &found, sizeof ask);  // ISO C has no cast from an object's to a function's address
#if __GLIBC_PREREQ(2, 33)
  struct mallinfo2 info = ask();
  *out = (struct totals){info.uordblks, info.keepcost};
#else
  struct mallinfo info = ask();
  *out = (struct totals){(unsigned)info.uordblks, (unsigned)info.keepcost};
#endif
  return true;
#else
  (void)libc_symbol_scope;
  (void)out;
  return false;
#endif
}

static bool libc_totals(struct totals *out) {
  void *libc = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);
  if (libc == NULL) return false;
  bool known = totals_of(libc, out);
  dlclose(libc);
  return known;
}

static bool in_program(const Dl_info *symbol) {
  Dl_info program;
  return dladdr((void *)getauxval(AT_PHDR), &program) != 0 && symbol->dli_fbase == program.dli_fbase;
}

// The object after the program, in the order in which names are looked up, that has a malloc of its own.
static bool after_program(Dl_info *out) {
  void *program = dlopen(NULL, RTLD_LAZY);
  struct link_map *map = NULL;
  bool found = false;
  if (program == NULL) return false;
  if (dlinfo(program, RTLD_DI_LINKMAP, &map) != 0) map = NULL;
  for (map = map == NULL ? NULL : map->l_next; map != NULL && !found; map = map->l_next) {
    void *object = dlopen(map->l_name, RTLD_LAZY | RTLD_NOLOAD);
    if (object == NULL) continue;
    void *its_malloc = dlsym(object, "malloc");  // its own, or that of a library which it needs
    found = its_malloc != NULL && dladdr(its_malloc, out) != 0 && strcmp(out->dli_fname, map->l_name) == 0;
    dlclose(object);
  }
  dlclose(program);
  return found;
}

// Whether glibc counts what malloc gives.
static bool glibc_counts(void) {
  struct totals before, after;
  for (int tries = 0; tries < 3; tries++) {  // another thread's free may hide ours once
    if (!libc_totals(&before)) return false;
    void *chunk = malloc(LARGEST_ASKED);
    bool known = chunk != NULL && malloc_usable_size(chunk) >= LARGEST_ASKED && libc_totals(&after);
    free(chunk);
    if (known && after.used >= before.used + LARGEST_ASKED) return true;
  }
  return false;
}

static int not_supported(char name[FF_HEAP_NAME], const char *what) {
  snprintf(name, FF_HEAP_NAME, "%s", what);
  return -ENOTSUP;
}

int ff_heap_allocator(char name[FF_HEAP_NAME]) {
  Dl_info allocator, libc;
  void *malloc_found = dlsym(RTLD_DEFAULT, "malloc"), *version = dlsym(RTLD_DEFAULT, "gnu_get_libc_version");
  if (version == NULL || dladdr(version, &libc) == 0) return not_supported(name, "a C library other than glibc");
  if (malloc_found == NULL || dladdr(malloc_found, &allocator) == 0) return not_supported(name, "an unknown allocator");
  if (!in_program(&allocator))
    return allocator.dli_fbase == libc.dli_fbase ? 0 : not_supported(name, base_name(allocator.dli_fname));
  // The program has an allocator linked into it; or it is not position-independent, as Debian's Python, and only has
  // an entry there that leads on to malloc. No call tells the two apart, so the next malloc is looked for, and asked.
  Dl_info next;
  if (!after_program(&next)) return not_supported(name, "an unknown allocator");
  if (next.dli_fbase != libc.dli_fbase) return not_supported(name, base_name(next.dli_fname));
  return glibc_counts() ? 0 : not_supported(name, base_name(allocator.dli_fname));
}

static size_t chunk_bytes(void *chunk) { return malloc_usable_size(chunk) + sizeof(size_t); }

static size_t next_size(size_t size) {
  size_t step = size <= SMALL ? STEP : size / 8 & ~(size_t)(STEP - 1);
  return size > step ? size - step : 0;
}

static void pop(struct ff_heap *heap) {
  struct held *chunk = heap->first;
  heap->chunks--;
  heap->bytes -= chunk_bytes(chunk);
  heap->first = chunk->next;
  free(chunk);
}

void ff_heap_release(struct ff_heap *heap) {
  while (heap->first != NULL) pop(heap);
  heap->capped = false;
}

// A small chunk that is freed goes into a cache and stays where it is: a hole for the child, and a step by which the
// top climbs in every run. One that is made larger first, which beside the top moves nothing, falls back into it.
static void give_back_to_top(void *chunk, size_t size) {
  void *larger = size > SMALL ? chunk : realloc(chunk, (size_t)2 * SMALL);
  free(larger == NULL ? chunk : larger);
}

// 0 where it cannot be read.
static size_t resident_pages(void) {
  char text[128];
  int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
  ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
  if (fd >= 0) close(fd);
  if (size <= 0) return 0;
  text[size] = '\0';
  char *second;
  strtoul(text, &second, 10);
  return strtoul(second, NULL, 10);
}

int ff_heap_drain(struct ff_heap *heap, size_t largest, size_t most) {
  char name[FF_HEAP_NAME];
  int rc = ff_heap_allocator(name);
  if (rc < 0) return rc;
  ff_heap_release(heap);
  struct totals totals;
  if (!libc_totals(&totals)) return -ENOTSUP;
  const uintptr_t top = (uintptr_t)sbrk(0) - totals.top;
  const size_t resident = resident_pages();

  struct held **end = (struct held **)&heap->first;
  for (size_t size = LARGEST_ASKED; size >= STEP; size = next_size(size)) {
    for (;;) {
      struct held *chunk = malloc(size - sizeof(size_t));
      if (chunk == NULL) break;
      if ((uintptr_t)chunk >= top) {
        bool elsewhere = (uintptr_t)chunk >= (uintptr_t)sbrk(0);
        give_back_to_top(chunk, size);
        if (elsewhere && size <= SMALL) {
          ff_heap_release(heap);
          return -EXDEV;
        }
        break;
      }
      chunk->next = NULL;
      *end = chunk;
      end = &chunk->next;
      heap->chunks++;
      heap->bytes += chunk_bytes(chunk);
    }
  }
  while (heap->first != NULL && (chunk_bytes(heap->first) > largest || heap->bytes > most)) {
    if (chunk_bytes(heap->first) <= largest) heap->capped = true;
    pop(heap);
  }
#ifdef __GLIBC__
  // Of large holes whose pages the C library had given to the kernel, one in sixteen has come back for a header.
  if (resident > 0 && resident_pages() > resident + RETURNED_PAGES) malloc_trim(0);
#endif
  return 0;
}
