// SPDX-License-Identifier: Apache-2.0
//
// Small questions and wishes, for canaries with their keeper, and for zygotes with their workers.
//
// ctypes could do the same, but a canary must start without it: it would hide what a module that imports ctypes loads.
// /proc/self/environ shows the environment that the process was started with, not the present one.
//
// signal.getsignal knows what Python did; a handler that C code put in the place of Python's, only the kernel knows.
//
// What it cannot see: the environment while another thread changes it, for which the C library has no lock to take.
// Sources: prctl(2) (PR_SET_CHILD_SUBREAPER since Linux 3.4), dl_iterate_phdr(3) (dlpi_adds; glibc and musl),
// fs/pidfs.c in Linux (PIDFD_GET_INFO since 6.13, the status of one that has ended since 6.15).

#include "os/process.h"

#include <errno.h>
#include <link.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <unistd.h>

int ff_process_die_with_parent(int signal) {
  return prctl(PR_SET_PDEATHSIG, (unsigned long)signal, 0L, 0L, 0L) < 0 ? -errno : 0;
}

int ff_process_adopt_orphans(void) { return prctl(PR_SET_CHILD_SUBREAPER, 1UL, 0L, 0L, 0L) < 0 ? -errno : 0; }

// linux/pidfd.h as of 6.13, written out: most C libraries' kernel headers are older.
struct ff_pidfd_info {
  uint64_t mask;
  uint64_t cgroup;
  uint32_t ids[11];  // pid, tgid, ppid, and four of each user and group
  int32_t exit_code;
};
#define FF_PIDFD_GET_INFO _IOWR(0xFF, 11, struct ff_pidfd_info)
static const uint64_t FF_PIDFD_INFO_EXIT = 1U << 3;

int ff_process_exit_status(int pidfd, int *status) {
  struct ff_pidfd_info info = {.mask = FF_PIDFD_INFO_EXIT};
  if (ioctl(pidfd, FF_PIDFD_GET_INFO, &info) < 0) return -errno;
  if (!(info.mask & FF_PIDFD_INFO_EXIT)) return 0;
  *status = info.exit_code;
  return 1;
}

// The kernel cuts off what is too long, and refuses nothing.
void ff_process_set_name(const char *name) { prctl(PR_SET_NAME, (unsigned long)name, 0L, 0L, 0L); }

uint64_t ff_process_environment(void) {
  uint64_t sum = 0xcbf29ce484222325;  // FNV-1a, the ends of the variables included
  for (char **variable = environ; variable != NULL && *variable != NULL; variable++) {
    const char *byte = *variable;
    do {
      sum = (sum ^ (unsigned char)*byte) * 0x100000001b3;
    } while (*byte++ != '\0');
  }
  return sum;
}

void ff_process_signal_actions(uint64_t out[FF_PROCESS_SIGNALS]) {
  for (int number = 1; number <= FF_PROCESS_SIGNALS; number++) {
    struct sigaction action;
    bool known = sigaction(number, NULL, &action) == 0;
    out[number - 1] = known ? (uint64_t)(uintptr_t)action.sa_handler : 0;
  }
}

static int first_object(struct dl_phdr_info *info, size_t size, void *adds) {
  if (size >= offsetof(struct dl_phdr_info, dlpi_adds) + sizeof(info->dlpi_adds)) *(uint64_t *)adds = info->dlpi_adds;
  return 1;
}

uint64_t ff_process_libraries_loaded(void) {
  uint64_t adds = 0;
  dl_iterate_phdr(first_object, &adds);
  return adds;
}
