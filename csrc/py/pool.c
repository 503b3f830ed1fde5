// SPDX-License-Identifier: Apache-2.0
//
// Pools of pymalloc, recognised by their headers.
//
// Nothing public says which memory is pymalloc's. A pool's header has six fields that must agree with each other, and
// its free blocks form a chain within it: memory that passes for a pool by chance is next to impossible. The kernel
// does the reading, since the sixteen kilobytes around any address need not be mapped; where it refuses, no pool is
// known.
//
// Draining them: a child that allocates takes a free block from a pool that has one, somewhere between its parent's
// objects, and so copies a page for each few blocks. A parent that holds those blocks leaves it pools of its own.

#include "py/pool.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

void ff_pool_look(struct ff_pool *pool, uintptr_t address) {
  uintptr_t start = address & ~(uintptr_t)(FF_POOL_SIZE - 1);
  if (pool->start == start) return;
  pool->start = start;
  pool->block_size = 0;
  pool->error = 0;
  struct iovec local = {pool->bytes, FF_POOL_SIZE}, remote = {(void *)start, FF_POOL_SIZE};
  ssize_t size_read = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
  if (size_read != FF_POOL_SIZE) {
    pool->error = size_read < 0 ? -errno : -EFAULT;
    return;
  }
  const struct ff_pool_header *header = (const struct ff_pool_header *)pool->bytes;
  if (header->size_class >= FF_POOL_CLASSES) return;
  size_t size = (header->size_class + 1) * FF_POOL_ALIGNMENT, blocks = (FF_POOL_SIZE - FF_POOL_HEADER) / size;
  if (header->most_offset != FF_POOL_SIZE - size || header->used > blocks || header->arena > 1 << 20) return;
  if (header->next_offset < FF_POOL_HEADER + size || header->next_offset > FF_POOL_SIZE) return;
  if ((header->next_offset - FF_POOL_HEADER) % size != 0) return;
  memset(pool->free, 0, sizeof pool->free);
  // Blocks are carved off one by one; those given back are chained through their first word.
  for (size_t block = (header->next_offset - FF_POOL_HEADER) / size; block < blocks; block++) pool->free[block] = true;
  uintptr_t at = header->free_block;
  for (size_t i = 0; at != 0 && i < blocks; i++) {
    if (at < start + FF_POOL_HEADER || at > start + FF_POOL_SIZE - size || (at - start - FF_POOL_HEADER) % size != 0)
      return;
    pool->free[(at - start - FF_POOL_HEADER) / size] = true;
    at = *(const uintptr_t *)(pool->bytes + (at - start));
  }
  pool->block_size = size;
}

// A chain of blocks held, through their first word: no memory is needed to remember them.
enum { RENEWED_POOLS = 64 };  // more than a child needs at once

struct held {
  struct held *next;
};

void ff_pool_release(struct ff_pool_drain *drain) {
  for (struct held *block = drain->first, *next; block != NULL; block = next) {
    next = block->next;
    PyObject_Free(block);
  }
  *drain = (struct ff_pool_drain){0};
}

// An empty pool that was used before remembers in which order its blocks came back. Taken for another size it begins
// anew, with the block beside the header: so all those that come next are used once for the largest size.
static void renew_empty_pools(void) {
  enum { COUNT = RENEWED_POOLS * ((FF_POOL_SIZE - FF_POOL_HEADER) / (FF_POOL_CLASSES * FF_POOL_ALIGNMENT)) };
  void *blocks[COUNT];
  size_t count = 0;
  while (count < COUNT && (blocks[count] = PyObject_Malloc(FF_POOL_CLASSES * FF_POOL_ALIGNMENT)) != NULL) count++;
  while (count > 0) PyObject_Free(blocks[--count]);
}

// A pool is taken anew when those in use are full: the first block of such a one is alone in it.
int ff_pool_drain(struct ff_pool_drain *drain, size_t most) {
  static struct ff_pool pool;  // too large for the stack, and the heap is what is drained
  ff_pool_release(drain);
  for (size_t size = FF_POOL_ALIGNMENT; size <= FF_POOL_CLASSES * FF_POOL_ALIGNMENT; size += FF_POOL_ALIGNMENT) {
    pool.start = 0;  // the last one of another size may be this one's by now
    for (;;) {
      struct held *block = PyObject_Malloc(size);
      if (block == NULL) return -ENOMEM;
      ff_pool_look(&pool, (uintptr_t)block);  // for the first block in each
      if (pool.block_size != size) {          // of another allocator
        PyObject_Free(block);
        ff_pool_release(drain);
        return pool.error == -EPERM || pool.error == -ENOSYS ? pool.error : -ENOTSUP;
      }
      if (((const struct ff_pool_header *)pool.start)->used == 1) {
        PyObject_Free(block);
        break;
      }
      block->next = drain->first;
      drain->first = block;
      drain->blocks++;
      drain->bytes += size;
      if (drain->bytes >= most) return 0;
    }
  }
  renew_empty_pools();
  return 0;
}
