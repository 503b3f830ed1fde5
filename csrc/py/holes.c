// SPDX-License-Identifier: Apache-2.0
//
// Draining pymalloc.
//
// CPython allocates up to 512 bytes from pools of 16 KB, one size each. A pool that is partly in use is used first, so
// a child's small objects go into the holes between its parent's, and each copies a page that the two shared: the same
// as with the C library's heap (os/heap.c), and the same cure. Blocks are taken until one comes from a pool that held
// nothing else. Pools that are free as a whole are left: to a child they are worth a new page.
//
// Where a block lies is read from the header of its pool, which CPython does not publish (py/pool.h). So nothing is
// read unless the allocators in effect have pymalloc's pattern, and nothing is believed unless header and block agree
// on the size.
//
// What it does not cover: pools of other sizes than CPython's default (a build without the radix tree), debugging
// allocators and tracemalloc, which add to each block, and free-threaded builds, which have no pools.

#include "py/holes.h"

#include <stdint.h>

#include "py/pool.h"

enum { LARGEST = FF_POOL_CLASSES * FF_POOL_ALIGNMENT };

struct held {
  struct held *next;
};

#ifdef Py_GIL_DISABLED
static bool is_pymalloc(void) { return false; }
#else
// pymalloc serves objects and PyMem_Malloc with the same function and needs no context; malloc (PYTHONMALLOC=malloc)
// serves raw memory too, mimalloc has a function for each, and whatever wraps another allocator has a context.
static bool is_pymalloc(void) {
  PyMemAllocatorEx raw, memory, object;
  PyMem_GetAllocator(PYMEM_DOMAIN_RAW, &raw);
  PyMem_GetAllocator(PYMEM_DOMAIN_MEM, &memory);
  PyMem_GetAllocator(PYMEM_DOMAIN_OBJ, &object);
  return object.ctx == NULL && object.malloc == memory.malloc && object.malloc != raw.malloc;
}
#endif

static const struct ff_pool_header *pool_of(void *block) {
  return (const struct ff_pool_header *)((uintptr_t)block & ~(uintptr_t)(FF_POOL_SIZE - 1));
}

// Blocks in use in the pool of this block, or 0 if that is no pool of this size.
static unsigned in_use(void *block, size_t size) {
  const struct ff_pool_header *pool = pool_of(block);
  bool plausible =
      pool->size_class == size / FF_POOL_ALIGNMENT - 1 && pool->used <= (FF_POOL_SIZE - sizeof *pool) / size;
  return plausible ? pool->used : 0;
}

static void pop(struct ff_holes *pools) {
  struct held *block = pools->first;
  pools->blocks--;
  pools->bytes -= ((size_t)pool_of(block)->size_class + 1) * FF_POOL_ALIGNMENT;
  pools->first = block->next;
  PyObject_Free(block);
}

void ff_holes_release(struct ff_holes *pools) {
  while (pools->first != NULL) pop(pools);
  pools->capped = false;
}

int ff_holes_drain(struct ff_holes *pools, size_t most) {
  if (pools->first == NULL && !is_pymalloc()) return -1;
  ff_holes_release(pools);
  if (!is_pymalloc()) return -1;  // tracemalloc was started meanwhile: it passes on blocks that it does not know
  struct held **end = (struct held **)&pools->first;
  for (size_t size = LARGEST; size >= FF_POOL_ALIGNMENT; size -= FF_POOL_ALIGNMENT) {
    for (;;) {
      struct held *block = PyObject_Malloc(size);
      if (block == NULL) break;
      unsigned used = in_use(block, size);
      if (used <= 1) {
        PyObject_Free(block);
        if (used == 0) return size == LARGEST ? -1 : 0;
        break;
      }
      block->next = NULL;
      *end = block;
      end = &block->next;
      pools->blocks++;
      pools->bytes += size;
    }
  }
  while (pools->bytes > most) {
    pools->capped = true;
    pop(pools);
  }
  return 0;
}
