// SPDX-License-Identifier: Apache-2.0
//
// Turning it off walks the whole address space, which under AddressSanitizer is many terabytes: not done there.
#include <errno.h>

#include "check.h"
#include "os/merge.h"

static void inherited(void *unused) {
  (void)unused;
  CHECK_EQUAL(ff_merge_get(), 1);
  CHECK_EQUAL(ff_merge_set(false), 0);
  CHECK_EQUAL(ff_merge_get(), 0);
}

int main(void) {
#ifdef __SANITIZE_ADDRESS__
  CHECK(ff_merge_get() <= 0);
  return 0;
#endif
  int rc = ff_merge_set(true);
  if (rc == -EINVAL || rc == -EPERM) {
    CHECK(ff_merge_get() <= 0);
    printf("skipped: this kernel has no KSM for processes, or not for this user\n");
    return 0;
  }
  CHECK_EQUAL(rc, 0);
  CHECK_EQUAL(ff_merge_get(), 1);
  in_child(inherited, NULL);
  CHECK_EQUAL(ff_merge_get(), 1);
  CHECK_EQUAL(ff_merge_set(false), 0);
  CHECK_EQUAL(ff_merge_get(), 0);
  return 0;
}
