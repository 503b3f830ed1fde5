// SPDX-License-Identifier: Apache-2.0
//
// New and copied pages count, pages of files do not, and descriptors of the user's are left alone.
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "check.h"
#include "os/growth.h"

// The slack is that of the counters, and for what printf, or AddressSanitizer for its shadow memory, touches meanwhile.
#ifdef __SANITIZE_ADDRESS__
enum { PAGES = 400, SLACK = 150 };
#else
enum { PAGES = 400, SLACK = 40 };
#endif

static long page;

#define CHECK_NEAR(bytes, pages)                                                                      \
  do {                                                                                                \
    long long pages_ = (long long)(bytes) / page;                                                     \
    if (pages_ < (pages) - SLACK || pages_ > (pages) + SLACK) {                                       \
      fprintf(stderr, "%s:%d: %lld pages, not about %d\n", __FILE__, __LINE__, pages_, (int)(pages)); \
      exit(1);                                                                                        \
    }                                                                                                 \
  } while (0)

static void touch(char *memory) {
  for (long i = 0; i < PAGES; i++) memory[i * page] = 1;
}

static void copies_count(void *memory) {
  struct ff_growth growth;
  CHECK_EQUAL(ff_growth_init(&growth), 0);
  touch(memory);
  CHECK_NEAR(ff_growth_bytes(&growth), PAGES);
  touch(memory);  // its own by now
  CHECK_NEAR(ff_growth_bytes(&growth), PAGES);
  ff_growth_fini(&growth);
}

static void new_pages_count(void) {
  struct ff_growth growth;
  CHECK_EQUAL(ff_growth_init(&growth), 0);
  CHECK_NEAR(ff_growth_bytes(&growth), 0);
  char *memory = anonymous((size_t)(PAGES * page));
  touch(memory);
  CHECK_NEAR(ff_growth_bytes(&growth), PAGES);
  in_child(copies_count, memory);
  munmap(memory, (size_t)(PAGES * page));
  char *other = anonymous((size_t)page);
  other[0] = 1;  // what was given back shows at the next fault
  CHECK_NEAR(ff_growth_bytes(&growth), 0);
  munmap(other, (size_t)page);
  ff_growth_fini(&growth);
}

static void pages_of_files_do_not(void) {
  char path[] = "/tmp/frostfork-growth-XXXXXX";
  int fd = mkstemp(path);
  CHECK(fd >= 0);
  unlink(path);
  CHECK_EQUAL(ftruncate(fd, PAGES * page), 0);
  volatile char *mapped = mmap(NULL, (size_t)(PAGES * page), PROT_READ, MAP_PRIVATE, fd, 0);
  CHECK(mapped != MAP_FAILED);
  struct ff_growth growth;
  CHECK_EQUAL(ff_growth_init(&growth), 0);
  for (long i = 0; i < PAGES; i++) (void)mapped[i * page];
  CHECK_NEAR(ff_growth_bytes(&growth), 0);
  ff_growth_fini(&growth);
  munmap((void *)mapped, (size_t)(PAGES * page));
  close(fd);
}

// A program closes all descriptors and opens its own file under the number.
static void a_reused_number(void) {
  struct ff_growth growth;
  CHECK_EQUAL(ff_growth_init(&growth), 0);
  int number = growth.fd;
  close(number);
  int null = open("/dev/null", O_RDONLY);
  if (null != number) CHECK_EQUAL(dup2(null, number), number);
  char *memory = anonymous((size_t)(PAGES * page));
  touch(memory);
  CHECK_NEAR(ff_growth_bytes(&growth), PAGES);
  CHECK(growth.fd != number);
  ff_growth_fini(&growth);
  CHECK(fcntl(number, F_GETFD) >= 0);  // theirs is still open
  CHECK_EQUAL(growth.fd, -1);
  CHECK_NEAR(ff_growth_bytes(&growth), PAGES);  // the last known
  munmap(memory, (size_t)(PAGES * page));
  close(number);
  if (null != number) close(null);
}

int main(void) {
  page = sysconf(_SC_PAGESIZE);
  new_pages_count();
  pages_of_files_do_not();
  a_reused_number();
  return 0;
}
