// SPDX-License-Identifier: Apache-2.0
//
// The free blocks in pools that CPython's allocator uses in part, held so that nobody fills them.

#ifndef FROSTFORK_PY_HOLES_H
#define FROSTFORK_PY_HOLES_H

#include <stdbool.h>

#include "py/version.h"

// Caller-owned, zero before first use. The list of the blocks is threaded through the blocks themselves, the largest
// first.
struct ff_holes {
  void *first;
  size_t blocks;
  size_t bytes;
  bool capped;  // more could have been held
};

// Gives back what is held, then holds every free block of a pool that is partly in use, but no more than `most` bytes.
// Returns 0, or -1 where objects are not allocated by pymalloc; no exception is set.
int ff_holes_drain(struct ff_holes *pools, size_t most);

void ff_holes_release(struct ff_holes *pools);

#endif
