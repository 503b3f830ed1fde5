// SPDX-License-Identifier: Apache-2.0
//
// A heap with known holes: what is held of them, and what that saves a child.
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "check.h"
#include "os/baseline.h"
#include "os/heap.h"

static char name[FF_HEAP_NAME];

#ifdef __SANITIZE_ADDRESS__

// The sanitizer's allocator is one in the place of glibc's.
int main(void) {
  struct ff_heap heap = {0};
  CHECK_EQUAL(ff_heap_allocator(name), -ENOTSUP);
  CHECK(name[0] != '\0');
  CHECK_EQUAL(ff_heap_drain(&heap, 4096, 1 << 20), -ENOTSUP);
  CHECK_EQUAL(heap.chunks, 0);
  ff_heap_release(&heap);
  return 0;
}

#else

static const size_t PAGE = 4096;
enum { CHUNKS = 8000, SIZE = 200, PLENTY = 1 << 24 };

static void *used[CHUNKS];
static struct ff_baseline baseline;

// Chunks of about the same size as the holes, as a child would allocate them: pages of the heap that it copied.
static void fill(void *copied) {
  static struct ff_comparison before, after;
  memset(&before, 0, sizeof before);
  memset(&after, 0, sizeof after);
  CHECK_EQUAL(ff_baseline_take(&baseline, 0), 0);
  CHECK_EQUAL(ff_baseline_compare(&baseline, &before), 0);
  for (int i = 0; i < CHUNKS / 4; i++) memset(malloc(SIZE - 16 * (i % 3)), 1, 100);
  CHECK_EQUAL(ff_baseline_compare(&baseline, &after), 0);
  *(int64_t *)copied = after.by_kind[FF_KIND_HEAP].unshared - before.by_kind[FF_KIND_HEAP].unshared;
}

static int64_t copied_by_child(void) {
  int64_t *copied = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(copied != MAP_FAILED);
  CHECK_EQUAL(ff_baseline_init(&baseline, 0), 0);
  in_child(fill, copied);
  ff_baseline_fini(&baseline);
  int64_t pages = *copied;
  munmap(copied, PAGE);
  return pages;
}

static void *in_thread(void *unused) {
  (void)unused;
  struct ff_heap heap = {0};
  CHECK_EQUAL(ff_heap_drain(&heap, PAGE, PLENTY), -EXDEV);
  CHECK_EQUAL(heap.chunks, 0);
  return NULL;
}

// Runs and releases in turn move neither the end of the heap nor what is held.
static void does_not_climb(struct ff_heap *heap) {
  CHECK_EQUAL(ff_heap_drain(heap, PAGE, PLENTY), 0);
  char *end = sbrk(0);
  size_t bytes = heap->bytes;
  for (int i = 0; i < 1000; i++) {
    if (i % 2) ff_heap_release(heap);
    CHECK_EQUAL(ff_heap_drain(heap, PAGE, PLENTY), 0);
    CHECK(heap->bytes <= bytes);
  }
  CHECK(sbrk(0) <= (void *)(end + 64 * PAGE));
}

static long resident(void) {
  long pages = 0;
  FILE *statm = fopen("/proc/self/statm", "r");
  CHECK(statm != NULL && fscanf(statm, "%*d %ld", &pages) == 1);
  fclose(statm);
  return pages;
}

// Large holes whose pages the kernel has do not come back.
static void leaves_trimmed_holes(void) {
  enum { LARGE = 100 << 10, COUNT = 2000 };  // 200 MB
  static void *blocks[COUNT];
  for (int i = 0; i < COUNT; i++) memset(blocks[i] = malloc(LARGE), 1, LARGE);
  void *above = malloc(LARGE);
  for (int i = 0; i < COUNT; i++) free(blocks[i]);
  malloc_trim(0);
  long before = resident();
  CHECK(before < COUNT * (LARGE / 4096) / 10);
  struct ff_heap heap = {0};
  CHECK_EQUAL(ff_heap_drain(&heap, PAGE, PLENTY), 0);
  CHECK(resident() < before + 500);  // one in sixteen would be 3,200
  ff_heap_release(&heap);
  free(above);
}

int main(void) {
  CHECK_EQUAL(ff_heap_allocator(name), 0);
  // A hole of 40 KB, and one between each two small chunks; a page holds about twenty of each.
  void *large = malloc(40000), *fence = malloc(SIZE);
  const uintptr_t start = (uintptr_t)large, stop = (uintptr_t)fence;
  for (int i = 0; i < CHUNKS; i++) memset(used[i] = malloc(SIZE), 1, SIZE);
  uintptr_t last = (uintptr_t)used[CHUNKS - 1];
  for (int i = 0; i < CHUNKS; i += 2) free(used[i]);
  free(large);

  int64_t without = copied_by_child();
  CHECK(without >= 50);  // 2,000 chunks of 200 bytes between others of 200 bytes are 195 pages
  struct ff_heap heap = {0};
  CHECK_EQUAL(ff_heap_drain(&heap, PAGE, PLENTY), 0);
  CHECK(heap.chunks >= CHUNKS / 2);
  CHECK(heap.bytes >= (size_t)CHUNKS / 2 * SIZE && heap.bytes < (size_t)CHUNKS / 2 * SIZE + 40000);
  CHECK(!heap.capped);
  CHECK(copied_by_child() * 4 < without);

  // The large hole was left to whoever needs it.
  void *again = malloc(30000);
  CHECK((uintptr_t)again < last);
  free(again);
  // The small ones were not, until they are given back.
  void *small = malloc(SIZE);
  CHECK((uintptr_t)small > last || ((uintptr_t)small >= start && (uintptr_t)small < stop));
  free(small);
  size_t chunks = heap.chunks, bytes = heap.bytes;
  CHECK_EQUAL(ff_heap_drain(&heap, PAGE, PLENTY), 0);
  CHECK(heap.chunks <= chunks + 3 && heap.bytes <= bytes + 2 * PAGE);  // `small` is cached, and cuts the large hole
  ff_heap_release(&heap);
  CHECK_EQUAL(heap.chunks, 0);
  CHECK_EQUAL(heap.bytes, 0);
  small = malloc(SIZE);
  CHECK((uintptr_t)small < last);
  free(small);

  CHECK_EQUAL(ff_heap_drain(&heap, PAGE, 100000), 0);
  CHECK(heap.capped && heap.bytes <= 100000 && heap.bytes > 90000);
  CHECK_EQUAL(ff_heap_drain(&heap, 100, PLENTY), 0);  // smaller than any of the holes
  CHECK(heap.bytes < 10000);
  does_not_climb(&heap);

  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, in_thread, NULL) == 0);
  CHECK(pthread_join(thread, NULL) == 0);
  ff_heap_release(&heap);
  leaves_trimmed_holes();
  for (int i = 1; i < CHUNKS; i += 2) free(used[i]);
  free(fence);
  return 0;
}

#endif
