// SPDX-License-Identifier: Apache-2.0
//
// The system calls of a pool's channels.
//
// Not Python's socket objects: those give up the GIL around each call, and in a process whose other thread computes
// the GIL comes back only after its switch interval, which is a thousand times longer than a call that never waits.
//
// Who sleeps until something comes is woken by the sender, and if that one is on another processor, this one has to be
// woken, too: 25 us in a virtual machine, ten times as long as the rest. Whoever expects an answer sooner than that
// does better not to sleep. On the sender's own processor the opposite holds: the answer is not begun before this
// process sleeps.
//
// A descriptor travels with the first byte of what is sent, and the kernel ends a receive before the next byte that
// carries one, so descriptors come in the order of the bytes that they belong to.

#include "os/channel.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>

#include "os/clock.h"

union control {
  char bytes[CMSG_SPACE(FF_CHANNEL_FDS * sizeof(int))];
  struct cmsghdr align;
};

ssize_t ff_channel_send(int socket, const void *first, size_t n_first, const void *second, size_t n_second, int fd,
                        bool wait) {
  struct iovec pieces[2] = {{(void *)first, n_first}, {(void *)second, n_second}};
  union control control;
  struct msghdr message = {.msg_iov = pieces, .msg_iovlen = n_second > 0 ? 2 : 1};
  if (fd >= 0) {
    memset(&control, 0, CMSG_SPACE(sizeof fd));
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_SPACE(sizeof fd);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
  }
  ssize_t sent;
  do {
    sent = sendmsg(socket, &message, MSG_NOSIGNAL | (wait ? 0 : MSG_DONTWAIT));
  } while (sent < 0 && errno == EINTR && !wait);  // one that waits lets its caller see to signals
  return sent < 0 ? -errno : sent;
}

ssize_t ff_channel_receive(int socket, void *into, size_t size, int *fds, size_t *n_fds, bool *lost, bool wait) {
  struct iovec piece = {into, size};
  union control control;
  struct msghdr message = {
      .msg_iov = &piece, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
  size_t room = *n_fds;
  *n_fds = 0;
  *lost = false;
  ssize_t got;
  do {
    got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | (wait ? 0 : MSG_DONTWAIT));
  } while (got < 0 && errno == EINTR && !wait);
  if (got < 0) return -errno;
  *lost = (message.msg_flags & MSG_CTRUNC) != 0;
  for (struct cmsghdr *each = CMSG_FIRSTHDR(&message); each != NULL; each = CMSG_NXTHDR(&message, each)) {
    if (each->cmsg_level != SOL_SOCKET || each->cmsg_type != SCM_RIGHTS) continue;
    size_t count = (each->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count && *n_fds < room; i++) {
      memcpy(&fds[(*n_fds)++], CMSG_DATA(each) + i * sizeof(int), sizeof(int));
    }
  }
  return got;
}

ssize_t ff_channel_receive_awake(int socket, void *into, size_t size, int *fds, size_t *n_fds, bool *lost,
                                 uint64_t nanoseconds) {
  size_t room = *n_fds;
  uint64_t end = ff_clock_now() + nanoseconds;
  ssize_t got;
  do {
    *n_fds = room;
    got = ff_channel_receive(socket, into, size, fds, n_fds, lost, false);
  } while (got == -EAGAIN && ff_clock_now() < end);
  return got;
}

int ff_channel_patience(int socket, int milliseconds) {
  struct timeval time = {0};
  if (milliseconds > 0) time = (struct timeval){milliseconds / 1000, milliseconds % 1000 * 1000};
  return setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time) < 0 ? -errno : 0;
}
