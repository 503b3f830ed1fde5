// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "check.h"
#include "os/kernel.h"

static void drop_privileges(void *unused) {
  (void)unused;
  CHECK(setgid(65534) == 0);
  CHECK(setuid(65534) == 0);
  struct ff_kernel kernel;
  CHECK_EQUAL(ff_kernel_probe(&kernel), 0);
  CHECK(!kernel.frame_numbers);
  // Changing the uid clears the dumpable flag, and the kernel then refuses even our own pagemap.
  CHECK_EQUAL(kernel.pagemap, -EACCES);
}

static void *wait_for(void *gate) {
  pthread_mutex_lock(gate);
  pthread_mutex_unlock(gate);
  return NULL;
}

static void threads_are_counted(void) {
  pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
  pthread_t threads[3];
  int before = ff_kernel_threads();
  CHECK(before >= 1);  // a sanitizer may have one of its own
  pthread_mutex_lock(&gate);
  for (int i = 0; i < 3; i++) CHECK(pthread_create(&threads[i], NULL, wait_for, &gate) == 0);
  CHECK_EQUAL(ff_kernel_threads(), before + 3);
  pthread_mutex_unlock(&gate);
  for (int i = 0; i < 3; i++) CHECK(pthread_join(threads[i], NULL) == 0);
}

int main(void) {
  threads_are_counted();
  struct ff_kernel kernel, again;
  CHECK_EQUAL(ff_kernel_probe(&kernel), 0);
  CHECK_EQUAL(kernel.page_size, sysconf(_SC_PAGESIZE));
  CHECK(kernel.major >= 4);
  CHECK_EQUAL(kernel.pagemap, 0);
  CHECK_EQUAL(ff_kernel_probe(&again), 0);
  CHECK(memcmp(&kernel, &again, sizeof kernel) == 0);
  CHECK(ff_kernel_unsupported(-ENOTTY) && ff_kernel_unsupported(-EINVAL) && ff_kernel_unsupported(-ENOSYS));
  CHECK(!ff_kernel_unsupported(-EPERM) && !ff_kernel_unsupported(0));
  if (getuid() == 0) in_child(drop_privileges, NULL);
  return 0;
}
