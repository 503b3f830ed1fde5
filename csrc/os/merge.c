// SPDX-License-Identifier: Apache-2.0
//
// KSM by prctl.
//
// The kernel's samepage merging compares pages in the background and maps equal ones to one frame. It gives back what
// copies with unchanged bytes cost: a page that a child copied because a reference count went up and down again. It
// takes a kernel thread's CPU and comes late, so it is for interpreters whose objects cannot be made immortal.
// PR_SET_MEMORY_MERGE (Linux 6.4) is for all mappings of the process, present and future, and a fork inherits it;
// MADV_MERGEABLE would have to be repeated for each.
//
// What it cannot do: turn KSM on. That is /sys/kernel/mm/ksm/run, for root.
// Source: Documentation/admin-guide/mm/ksm.rst and kernel/sys.c of Linux 6.18.

#include "os/merge.h"

#include <errno.h>
#include <sys/prctl.h>

#include "os/kernel_abi.h"

int ff_merge_set(bool merge) {
  return prctl(FF_PR_SET_MEMORY_MERGE, (unsigned long)merge, 0L, 0L, 0L) < 0 ? -errno : 0;
}

int ff_merge_get(void) {
  int rc = prctl(FF_PR_GET_MEMORY_MERGE, 0L, 0L, 0L, 0L);
  return rc < 0 ? -errno : rc;
}
