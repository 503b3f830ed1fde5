// SPDX-License-Identifier: Apache-2.0
//
// Baselines: two bits and a frame number for each anonymous page, and the comparison with now.
//
// The record must not disturb what it records. It is kept in shared memory, which the counters pass over; the parent
// reserves the address space before it forks, so that the child only writes where nothing is counted; and reading uses
// 13 KB of stack, which a Python frame has long made the child's own. An allocator would have put the record among the
// objects whose pages are counted.
//
// Layout: behind a head follow blocks, one for each 2 MB window of address space that has an anonymous page, in the
// order of addresses. A block is a bitmap of the anonymous pages, a bitmap of those that were shared, and the frame
// numbers of all of them, as offsets from one below the smallest, each in as many bits as the largest needs; offset 0
// is a page that was swapped out and had no frame. Frames of one process come from all over the machine's memory, so an
// offset takes about 23 bits on 24 GB and 28 on 1 TB: 1 GB of pages stays under 1 MB either way. Hashes of frames would
// be smaller and could be wrong.

#include "os/baseline.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "os/pagemap.h"

enum { WINDOW = 512, WORDS = WINDOW / 64 };  // pages a window, words a bitmap

struct ff_baseline_head {
  size_t used;  // bytes, head included
  int64_t anonymous, shared;
  pid_t owner, taker;  // whose pages, and who looked
  bool frames;
};

struct block {
  uint64_t window;  // address of its first page
  uint64_t anonymous[WORDS];
  uint64_t shared[WORDS];
  uint64_t below;         // frame number from which the packed ones count
  uint32_t width;         // bits of a packed frame number, 0 without frames
  uint32_t packed_words;  // 64-bit words behind this block
};

// The block being filled, and the frames of its anonymous pages in the order of addresses; 0 for none.
struct filling {
  struct block block;
  size_t count;
  uint64_t frames[WINDOW];
};

static bool bit(const uint64_t *words, size_t i) { return words[i / 64] >> (i % 64) & 1; }

static void set_bit(uint64_t *words, size_t i) { words[i / 64] |= UINT64_C(1) << (i % 64); }

static bool is_anonymous(uint64_t entry) {
  return (entry & (FF_PM_PRESENT | FF_PM_SWAPPED)) != 0 && !(entry & FF_PM_FILE);
}

// Pages of address space, from the first field of statm; 0 when it cannot be read.
static uint64_t pages_mapped(pid_t pid) {
  int fd = ff_maps_open_proc(pid, "statm");
  if (fd < 0) return 0;
  char text[64];
  ssize_t got;
  do {
    got = read(fd, text, sizeof text - 1);
  } while (got < 0 && errno == EINTR);
  close(fd);
  unsigned long long pages = 0;
  if (got > 0) {
    text[got] = '\0';
    if (sscanf(text, "%llu", &pages) != 1) pages = 0;
  }
  return pages;
}

int ff_baseline_init(struct ff_baseline *baseline, pid_t pid) {
  // The most that a window can take, for every window that the mappings could fill, and 2,048 windows that begin or
  // end a mapping or come before the baseline is taken. Address space only: pages come as they are written.
  const size_t most = sizeof(struct block) + WINDOW * sizeof(uint64_t);
  baseline->reserved = (pages_mapped(pid) / WINDOW + 2048) * most;
  void *memory =
      mmap(NULL, baseline->reserved, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  baseline->memory = memory == MAP_FAILED ? NULL : memory;
  return memory == MAP_FAILED ? -errno : 0;
}

void ff_baseline_fini(struct ff_baseline *baseline) {
  if (baseline->memory != NULL) munmap(baseline->memory, baseline->reserved);
  baseline->memory = NULL;
}

static void pack_frames(const struct filling *filling, const struct block *block, uint64_t *words) {
  memset(words, 0, block->packed_words * sizeof *words);
  for (size_t i = 0; i < filling->count; i++) {
    uint64_t offset = filling->frames[i] == 0 ? 0 : filling->frames[i] - block->below;
    size_t at = i * block->width;
    words[at / 64] |= offset << (at % 64);
    if (at % 64 + block->width > 64) words[at / 64 + 1] |= offset >> (64 - at % 64);
  }
}

// The frame of the i-th anonymous page of a block; 0 for a page that had none.
static uint64_t unpack_frame(const struct block *block, size_t i) {
  const uint64_t *words = (const uint64_t *)(block + 1);
  size_t at = i * block->width;
  uint64_t offset = words[at / 64] >> (at % 64);
  if (at % 64 + block->width > 64) offset |= words[at / 64 + 1] << (64 - at % 64);
  offset &= (UINT64_C(1) << block->width) - 1;
  return offset == 0 ? 0 : block->below + offset;
}

// Appends the filled block, if it has a page, and starts one for the next window.
static int flush(struct ff_baseline *baseline, struct filling *filling, uint64_t next_window) {
  struct ff_baseline_head *head = baseline->memory;
  struct block *block = &filling->block;
  int64_t anonymous = 0;
  for (size_t i = 0; i < WORDS; i++) anonymous += __builtin_popcountll(block->anonymous[i]);
  if (anonymous > 0) {
    uint64_t lowest = UINT64_MAX, highest = 0;
    for (size_t i = 0; i < filling->count; i++) {
      uint64_t frame = filling->frames[i];
      if (frame != 0 && frame < lowest) lowest = frame;
      if (frame > highest) highest = frame;
    }
    if (highest > 0) {
      block->below = lowest - 1;
      block->width = 64 - (uint32_t)__builtin_clzll(highest - block->below);
      block->packed_words = (uint32_t)((filling->count * block->width + 63) / 64);
    }
    size_t bytes = sizeof *block + block->packed_words * sizeof(uint64_t);
    if (head->used + bytes > baseline->reserved) return -ENOMEM;
    struct block *stored = (struct block *)((char *)head + head->used);
    *stored = *block;
    if (block->packed_words > 0) pack_frames(filling, block, (uint64_t *)(stored + 1));
    head->used += bytes;
    head->anonymous += anonymous;
    for (size_t i = 0; i < WORDS; i++) head->shared += __builtin_popcountll(block->shared[i]);
  }
  memset(block, 0, sizeof *block);
  block->window = next_window;
  filling->count = 0;
  return 0;
}

int ff_baseline_take(struct ff_baseline *baseline, pid_t pid) {
  struct ff_pagemap pagemap;
  struct filling filling;
  uint64_t entries[WINDOW];
  memset(&filling, 0, sizeof filling);
  memset(entries, 0, sizeof entries);  // makes these stack pages ours before they are looked at

  struct ff_baseline_head *head = baseline->memory;
  *head = (struct ff_baseline_head){.used = sizeof *head, .taker = getpid()};
  head->owner = pid == 0 ? head->taker : pid;
  int rc = ff_pagemap_init(&pagemap, pid, true);
  if (rc < 0) return rc;
  const uint64_t window_bytes = WINDOW * pagemap.page_size;
  struct ff_run run;
  while ((rc = ff_pagemap_next(&pagemap, true, entries, WINDOW, &run)) > 0) {
    uint64_t window = run.start & ~(window_bytes - 1);
    if (window != filling.block.window && (rc = flush(baseline, &filling, window)) < 0) break;
    size_t first = (size_t)((run.start - window) / pagemap.page_size);
    for (size_t i = 0; i < run.pages; i++) {
      uint64_t entry = entries[i];
      if (!is_anonymous(entry) || bit(filling.block.anonymous, first + i)) continue;
      set_bit(filling.block.anonymous, first + i);
      bool present = entry & FF_PM_PRESENT;  // a swapped page's low bits say where in the swap it is
      uint64_t frame = present ? entry & FF_PM_FRAME_MASK : 0;
      if (present && !(entry & FF_PM_EXCLUSIVE)) set_bit(filling.block.shared, first + i);
      if (frame != 0) head->frames = true;
      filling.frames[filling.count++] = frame;
    }
  }
  if (rc == 0) rc = flush(baseline, &filling, 0);
  ff_pagemap_fini(&pagemap);
  return rc;
}

void ff_baseline_info(const struct ff_baseline *baseline, struct ff_baseline_info *out) {
  const struct ff_baseline_head *head = baseline->memory;
  *out = (struct ff_baseline_info){head->owner, head->anonymous, head->shared, head->frames, head->used};
}

// A walk over the blocks beside the walk over the pages: both go upwards, so each block is passed once.
struct cursor {
  const char *at, *end;
};

static const struct block *block_at(struct cursor *cursor, uint64_t window) {
  while (cursor->at < cursor->end) {
    const struct block *block = (const struct block *)cursor->at;
    if (block->window >= window) return block->window == window ? block : NULL;
    cursor->at += sizeof *block + block->packed_words * sizeof(uint64_t);
  }
  return NULL;
}

// How many anonymous pages of the block stand before this one: the place of its frame among the packed ones.
static size_t rank_of(const struct block *block, size_t page) {
  size_t rank = 0;
  for (size_t i = 0; i < page / 64; i++) rank += (size_t)__builtin_popcountll(block->anonymous[i]);
  if (page % 64) rank += (size_t)__builtin_popcountll(block->anonymous[page / 64] << (64 - page % 64));
  return rank;
}

// Returns whether the page is unshared.
static bool compare_page(const struct block *block, size_t page, uint64_t entry, bool all_shared,
                         struct ff_change *change) {
  bool was = block != NULL && bit(block->anonymous, page), is = is_anonymous(entry);
  if (!was && is) change->fresh++;
  if (was && !is) change->dropped++;
  if (!was || !is || !(entry & FF_PM_PRESENT) || !(entry & FF_PM_EXCLUSIVE)) return false;
  if (!all_shared && !bit(block->shared, page)) return false;
  change->unshared++;
  uint64_t now = entry & FF_PM_FRAME_MASK;
  uint64_t then = block->packed_words > 0 ? unpack_frame(block, rank_of(block, page)) : 0;
  if (now != 0 && then != 0 && now != then) change->copied++;
  return true;
}

// Pages of the baseline in a hole that the walk passed over: all of them are absent now.
static int64_t pages_in_hole(struct cursor *cursor, uint64_t start, uint64_t end, uint64_t page_size) {
  const uint64_t window_bytes = WINDOW * page_size;
  int64_t pages = 0;
  while (start < end) {
    uint64_t window = start & ~(window_bytes - 1);
    const struct block *block = block_at(cursor, window);
    if (block == NULL) {
      if (cursor->at >= cursor->end) break;
      uint64_t next = ((const struct block *)cursor->at)->window;
      start = next < end ? next : end;
      continue;
    }
    uint64_t stop = window + window_bytes < end ? window + window_bytes : end;
    for (; start < stop; start += page_size) pages += bit(block->anonymous, (size_t)((start - window) / page_size));
  }
  return pages;
}

int ff_baseline_walk(const struct ff_baseline *baseline, struct ff_pagemap *pagemap, bool all_shared,
                     ff_baseline_each *each, void *argument, struct ff_comparison *out) {
  uint64_t entries[WINDOW];
  memset(entries, 0, sizeof entries);
  const struct ff_baseline_head *head = baseline->memory;
  struct ff_comparison found = {0};
  struct cursor cursor = {(const char *)(head + 1), (const char *)head + head->used};
  const uint64_t window_bytes = WINDOW * pagemap->page_size;
  int64_t accounted = 0;  // pages of the baseline that some mapping of now covers
  bool frames_now = false;
  struct ff_run run;
  int rc;
  while ((rc = ff_pagemap_next(pagemap, true, entries, WINDOW, &run)) > 0) {
    struct ff_change *change = &found.by_kind[run.kind];
    if (run.hole < run.start) {
      int64_t pages = pages_in_hole(&cursor, run.hole, run.start, pagemap->page_size);
      change->dropped += pages;
      accounted += pages;
    }
    uint64_t window = run.start & ~(window_bytes - 1);
    const struct block *block = block_at(&cursor, window);
    size_t first = (size_t)((run.start - window) / pagemap->page_size);
    for (size_t i = 0; i < run.pages; i++) {
      accounted += block != NULL && bit(block->anonymous, first + i);
      frames_now |= (entries[i] & FF_PM_PRESENT) && (entries[i] & FF_PM_FRAME_MASK);
      if (!compare_page(block, first + i, entries[i], all_shared, change) || each == NULL) continue;
      if ((rc = each(argument, run.start + i * pagemap->page_size, run.kind)) < 0) return rc;
    }
  }
  if (rc < 0) return rc;
  found.unmapped = head->anonymous - accounted;
  found.frames = head->frames && frames_now;
  *out = found;
  return 0;
}

int ff_baseline_compare(const struct ff_baseline *baseline, struct ff_comparison *out) {
  // Whoever took a baseline of another process compares that process. Whoever took one of itself compares itself; and
  // so does a child that inherited its parent's, to which all pages of the baseline came shared.
  struct ff_pagemap pagemap;
  const struct ff_baseline_head *head = baseline->memory;
  const bool own = head->owner == head->taker;
  const bool inherited = own && getpid() != head->owner;
  int rc = ff_pagemap_init(&pagemap, own ? 0 : head->owner, true);
  if (rc < 0) return rc;
  rc = ff_baseline_walk(baseline, &pagemap, inherited, NULL, NULL, out);
  ff_pagemap_fini(&pagemap);
  return rc;
}
