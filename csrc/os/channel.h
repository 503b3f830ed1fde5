// SPDX-License-Identifier: Apache-2.0
//
// Bytes and descriptors over an AF_UNIX stream socket: one system call each, and no signal if the other end is gone.

#ifndef FROSTFORK_OS_CHANNEL_H
#define FROSTFORK_OS_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { FF_CHANNEL_FDS = 64 };  // the most that one receive takes

// Sends two pieces, and one descriptor with the first byte unless fd is -1. Returns the bytes sent, which may be fewer,
// or a negative errno; -EAGAIN if `wait` is false and there is no room.
ssize_t ff_channel_send(int socket, const void *first, size_t n_first, const void *second, size_t n_second, int fd,
                        bool wait);

// Receives up to `size` bytes. Returns their number, 0 at the end, or a negative errno. *n_fds is in: the room in fds,
// out: how many came; *lost is whether some did not fit into this process's table of descriptors.
ssize_t ff_channel_receive(int socket, void *into, size_t size, int *fds, size_t *n_fds, bool *lost, bool wait);

// Receives without sleeping: looks again and again, and returns -EAGAIN if nothing has come in so many nanoseconds.
ssize_t ff_channel_receive_awake(int socket, void *into, size_t size, int *fds, size_t *n_fds, bool *lost,
                                 uint64_t nanoseconds);

// Receives that wait end with -EAGAIN after so many milliseconds; below 1: never. Returns 0 or a negative errno.
int ff_channel_patience(int socket, int milliseconds);

#endif
