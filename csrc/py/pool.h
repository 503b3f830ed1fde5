// SPDX-License-Identifier: Apache-2.0
//
// A pool of pymalloc: which of its blocks are free.

#ifndef FROSTFORK_PY_POOL_H
#define FROSTFORK_PY_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "py/version.h"

// Of 64-bit builds since 3.10: struct pool_header in Include/internal/pycore_obmalloc.h, unchanged up to 3.14.
enum { FF_POOL_SIZE = 16384, FF_POOL_HEADER = 48, FF_POOL_ALIGNMENT = 16, FF_POOL_CLASSES = 32 };

struct ff_pool_header {
  uint32_t used, unused;  // blocks in use
  uintptr_t free_block, next, previous;
  uint32_t arena, size_class, next_offset, most_offset;
};

_Static_assert(sizeof(struct ff_pool_header) == FF_POOL_HEADER, "as in a 64-bit build");

// Caller-owned; {0} before the first look.
struct ff_pool {
  uintptr_t start;    // 0 when none was looked at
  size_t block_size;  // 0 when this is not a pool
  int error;          // why it could not be read: a negative errno, or 0
  bool free[(FF_POOL_SIZE - FF_POOL_HEADER) / FF_POOL_ALIGNMENT];
  _Alignas(16) unsigned char bytes[FF_POOL_SIZE];  // a copy
};

// Looks at the pool that this address would be in, unless that was the last one looked at.
void ff_pool_look(struct ff_pool *pool, uintptr_t address);

// Caller-owned; {0} before the first drain.
struct ff_pool_drain {
  void *first;
  size_t blocks, bytes;
};

// Gives back what is held, then holds the free blocks of all pools that have some in use, up to `most` bytes. 0;
// -ENOTSUP where small objects are not pymalloc's, -ENOMEM. Needs the GIL.
int ff_pool_drain(struct ff_pool_drain *drain, size_t most);
void ff_pool_release(struct ff_pool_drain *drain);

#endif
