// SPDX-License-Identifier: Apache-2.0
//
// The free blocks in pools that CPython's allocator uses in part, held so that nobody fills them.

#ifndef FROSTFORK_PY_POOLS_H
#define FROSTFORK_PY_POOLS_H

#include <stdbool.h>

#include "py/version.h"

// Caller-owned, zero before first use. The list of the blocks is threaded through the blocks themselves, the largest
// first.
struct ff_py_pools {
  void *first;
  size_t blocks;
  size_t bytes;
  bool capped;  // more could have been held
};

// Gives back what is held, then holds every free block of a pool that is partly in use, but no more than `most` bytes.
// Returns 0, or -1 where objects are not allocated by pymalloc; no exception is set.
int ff_py_pools_drain(struct ff_py_pools *pools, size_t most);

void ff_py_pools_release(struct ff_py_pools *pools);

#endif
