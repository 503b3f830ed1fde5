// SPDX-License-Identifier: Apache-2.0
//
// Both ways of reading the mappings give the same, and each mapping its kind.
#include <fcntl.h>
#include <string.h>

#include "check.h"
#include "os/maps.h"

enum { MOST = 4096 };

static size_t walk(struct ff_mapping *out, bool by_query) {
  struct ff_maps maps;
  CHECK_EQUAL(ff_maps_init(&maps, 0, true), 0);
  maps.query = by_query;
  size_t count = 0;
  int rc;
  while ((rc = ff_maps_next(&maps, &out[count])) > 0) {
    CHECK(count == 0 || out[count - 1].end <= out[count].start);
    count++;
    CHECK(count < MOST);
  }
  CHECK_EQUAL(rc, 0);
  ff_maps_fini(&maps);
  return count;
}

static enum ff_kind kind_at(const struct ff_mapping *mappings, size_t count, const void *address) {
  for (size_t i = 0; i < count; i++) {
    if (mappings[i].start <= (uintptr_t)address && (uintptr_t)address < mappings[i].end) return mappings[i].kind;
  }
  fprintf(stderr, "no mapping at %p\n", address);
  exit(1);
}

int main(void) {
  static struct ff_mapping by_query[MOST], by_text[MOST];
  char local = 0;
  char *heap = calloc(1, 64), *private = anonymous(1 << 20);
  char *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  // Many lines of text: more than one buffer of the reader, with paths that end anywhere in it.
  for (int i = 0; i < 300; i++) {
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    CHECK(mmap(NULL, 4096, i % 2 ? PROT_READ : PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0) != MAP_FAILED);
    close(fd);
  }
  size_t queried = walk(by_query, true), texts = walk(by_text, false);
  // The text also lists the vsyscall page, which is no mapping of the process.
  while (texts > 0 && by_text[texts - 1].kind == FF_KIND_SPECIAL && by_text[texts - 1].start >> 63) texts--;
  CHECK_EQUAL(queried, texts);
  CHECK(queried > 300);
  for (size_t i = 0; i < texts; i++) {
    CHECK_EQUAL(by_query[i].start, by_text[i].start);
    CHECK_EQUAL(by_query[i].end, by_text[i].end);
    CHECK_EQUAL(by_query[i].kind, by_text[i].kind);
  }
  CHECK_EQUAL(kind_at(by_text, texts, &local), FF_KIND_STACK);
#ifndef __SANITIZE_ADDRESS__  // its allocator does not use the brk heap
  CHECK_EQUAL(kind_at(by_text, texts, heap), FF_KIND_HEAP);
#endif
  CHECK_EQUAL(kind_at(by_text, texts, private), FF_KIND_ANONYMOUS);
  CHECK_EQUAL(kind_at(by_text, texts, shared), FF_KIND_SHARED);
  CHECK_EQUAL(kind_at(by_text, texts, (void *)(uintptr_t)main), FF_KIND_FILE);
  free(heap);
  return 0;
}
