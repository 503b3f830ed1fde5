// SPDX-License-Identifier: Apache-2.0
//
// What a process that tries foreign code needs of the kernel and the C library, and Python does not offer.

#ifndef FROSTFORK_OS_PROCESS_H
#define FROSTFORK_OS_PROCESS_H

#include <stdint.h>

// This process gets `signal` when the thread that forked it ends. Returns 0 or a negative errno.
int ff_process_die_with_parent(int signal);

// Orphaned descendants become children of this process instead of init's. Returns 0 or a negative errno.
int ff_process_adopt_orphans(void);

// The wait status of the process behind a pidfd, for one that is nobody's child here. Returns 1 when it is known; 0
// while the process runs or has not been waited for; a negative errno, before Linux 6.15 -ENOTTY, -EINVAL or -ESRCH.
int ff_process_exit_status(int pidfd, int *status);

// What ps, top and /proc call this process: the first 15 bytes of `name`. The arguments that `ps -f` shows stay.
void ff_process_set_name(const char *name);

// A number that changes with the C library's environment: with any variable's name or value, or their order.
uint64_t ff_process_environment(void);

enum { FF_PROCESS_SIGNALS = 64 };

// What this process does with each signal from 1 to 64, as the kernel has it: a handler's address, or 0 and 1 for the
// default and for ignored. 0 for a signal that the C library keeps for itself.
void ff_process_signal_actions(uint64_t out[FF_PROCESS_SIGNALS]);

// How many shared objects this process has loaded so far, those counted that were unloaded since.
uint64_t ff_process_libraries_loaded(void);

#endif
