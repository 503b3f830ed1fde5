// SPDX-License-Identifier: Apache-2.0
//
// Pools of pymalloc, recognised by their headers.
//
// Nothing public says which memory is pymalloc's. A pool's header has six fields that must agree with each other, and
// its free blocks form a chain within it: memory that passes for a pool by chance is next to impossible. The kernel
// does the reading, since the sixteen kilobytes around any address need not be mapped; where it refuses, no pool is
// known.

#include "py/pool.h"

#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

void ff_pool_look(struct ff_pool *pool, uintptr_t address) {
  uintptr_t start = address & ~(uintptr_t)(FF_POOL_SIZE - 1);
  if (pool->start == start) return;
  pool->start = start;
  pool->block_size = 0;
  struct iovec local = {pool->bytes, FF_POOL_SIZE}, remote = {(void *)start, FF_POOL_SIZE};
  if (process_vm_readv(getpid(), &local, 1, &remote, 1, 0) != FF_POOL_SIZE) return;
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
