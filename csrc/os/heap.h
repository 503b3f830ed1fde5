// SPDX-License-Identifier: Apache-2.0
//
// The free chunks below the top of glibc's heap, held so that nobody fills them.

#ifndef FROSTFORK_OS_HEAP_H
#define FROSTFORK_OS_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Caller-owned, zero before first use. The list of the chunks is threaded through the chunks themselves, the largest
// first.
struct ff_heap {
  void *first;
  size_t chunks;
  size_t bytes;
  bool capped;  // more could have been held
};

#define FF_HEAP_NAME 64

// Whether malloc is glibc's own. Returns 0, or -ENOTSUP with the file name of the allocator or C library in its place.
int ff_heap_allocator(char name[FF_HEAP_NAME]);

// Gives back what is held, then holds every free chunk of at most `largest` bytes below the top of the main arena, but
// no more than `most` bytes in all: the smaller ones first, which children fill first. Returns 0, -ENOTSUP where
// malloc is not glibc's, or -EXDEV where the calling thread does not allocate from the heap that brk grows.
int ff_heap_drain(struct ff_heap *heap, size_t largest, size_t most);

void ff_heap_release(struct ff_heap *heap);

#endif
