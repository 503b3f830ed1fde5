// SPDX-License-Identifier: Apache-2.0
//
// The least that a page count can cost: pread of the pagemap entries of given ranges, and nothing done with them.
//
// The caller has opened the file and looked up the ranges before the clock starts, so what is left is the kernel's
// work.

#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

// ranges: pairs of first address and end, in bytes. Reads them in pieces of at most `capacity` entries. Returns the
// number of entries read, or -1.
long bare_pread(int pagemap, const uint64_t *ranges, size_t count, uint64_t *entries, size_t capacity,
                uint64_t page_size) {
  long total = 0;
  for (size_t i = 0; i < count; i++) {
    uint64_t page = ranges[2 * i] / page_size, end = ranges[2 * i + 1] / page_size;
    while (page < end) {
      uint64_t pages = end - page < capacity ? end - page : capacity;
      ssize_t got = pread(pagemap, entries, pages * sizeof *entries, (off_t)(page * sizeof *entries));
      if (got <= 0 || got % (ssize_t)sizeof *entries != 0) return -1;
      page += (uint64_t)got / sizeof *entries;
      total += got / (long)sizeof *entries;
    }
  }
  return total;
}
