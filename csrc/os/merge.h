// SPDX-License-Identifier: Apache-2.0
//
// KSM for a whole process: pages of equal content become one.

#ifndef FROSTFORK_OS_MERGE_H
#define FROSTFORK_OS_MERGE_H

#include <stdbool.h>

// Lets the kernel merge all anonymous memory of this process and of the children that it forks from now on, or no
// longer. Returns 0 or a negative errno: -EINVAL before Linux 6.4 or without CONFIG_KSM.
int ff_merge_set(bool merge);

// 1, 0, or a negative errno as above.
int ff_merge_get(void);

#endif
