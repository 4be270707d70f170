/*
 * The descriptor of a seccomp filter with SCMP_ACT_NOTIFY, on its way from the container's process
 * to the agent that decides on the system calls (config-linux.md, "The Container Process State").
 *
 * The process has the filter in force when it has the descriptor: each of its system calls may wait
 * for an agent that does not know of it yet. So it only writes the number, with write(2), which no
 * profile may hand to an agent, and the runtime takes the descriptor with pidfd_getfd(2). From then
 * on the agent answers for whatever the process does. runc does the same.
 */
#ifndef RUNTIME_LISTENER_H
#define RUNTIME_LISTENER_H

#include <stdbool.h>
#include <sys/types.h>

#include <schema/oci_config.h>
#include <schema/runtime_state.h>

#include <base/error.h>

/* In the parent, before the process is made: may we take descriptors of a process that is not
 * dumpable? Without CAP_SYS_PTRACE (rootless) it has to become dumpable for that. */
bool listener_can_take(void);

/* In the process: tells the parent, waits until it has been taken, closes it. */
int listener_give(int sync_fd, int listener_fd, struct error *err);

/* In the parent, after SYNC_RELEASE: takes it and sends it to linux.seccomp.listenerPath. Blocks
 * for LISTENER_AGENT_MS at most on an agent that does not accept. That no agent is there is an
 * error only where filter_notifies(): else nothing will ever ask it. state and status: of the
 * container; pid: of the process. */
int listener_serve(int sync_fd, int pidfd, const struct oci_seccomp *config,
                   const struct runtime_state *state, const char *status, pid_t container_pid,
                   pid_t pid, struct error *err);

enum { LISTENER_AGENT_MS = 10000 };

#endif
