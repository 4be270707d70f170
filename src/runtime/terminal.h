/*
 * Terminals: made inside the container from its own devpts, the master handed out over a socket.
 */
#ifndef RUNTIME_TERMINAL_H
#define RUNTIME_TERMINAL_H

#include <sys/ioctl.h>

#include <schema/oci_config.h>

#include <base/error.h>

/* The size a new terminal starts with: the configured one, else that of the caller's terminal when
 * it is going to be copied there (own), else 0. */
struct winsize terminal_first_size(const struct oci_box *configured, bool own);

/* In the container's process: opens a new pty below root_fd (O_PATH, the container's root). Both
 * descriptors are owned by the caller. */
int terminal_open(int root_fd, const struct winsize *size, int *ret_master, int *ret_slave,
                  struct error *err);

/* Sends the master to console_fd, as runc does: one message, the slave's name as data. */
/* For a terminal that we relay ourselves: the caller's own adds carriage returns, or it is a pipe.
 */
void terminal_leave_newlines(int master_fd);

int terminal_send(int console_fd, int master_fd, struct error *err);

/* Makes the slave stdin, stdout, stderr and the controlling terminal of this session leader. */
int terminal_enter(int slave_fd, struct error *err);

/* In the caller of a foreground run: receives the master. */
int terminal_receive(int console_fd, int *ret_master, struct error *err);

#endif
