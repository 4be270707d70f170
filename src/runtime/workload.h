/*
 * The last part of the way from the runtime's child to the container's program, the same for init
 * and for executed processes.
 *
 * State on entry: in the container's namespaces and root, session leader, standard descriptors in
 * place, all the runtime's privileges.
 */
#ifndef RUNTIME_WORKLOAD_H
#define RUNTIME_WORKLOAD_H

#include <stdbool.h>

#include <schema/oci_config.h>

#include <base/error.h>

#include "capabilities.h"
#include "filter.h"
#include "preserved.h"

struct workload {
    const struct oci_process *config; /* borrowed */
    const struct oci_linux *linux;    /* borrowed; may be NULL */
    int proc_fd;                      /* borrowed; the host's /proc. Set before the child starts */
    struct preserved *preserved;      /* borrowed; the descriptors that stay open */
    int hook_fds[2];                  /* borrowed; what startContainer hooks write to; -1: none */
    unsigned listen_fds;              /* those of them that LISTEN_FDS is about */
    char **variables;                 /* owned; of the environment, besides the configured ones */
    struct capability_sets capabilities; /* none where none are configured */
    char **environment;                  /* owned; in the child */
    char *path;                          /* owned; of the program */
    bool keeps_groups;                   /* the supplementary groups of the caller */
    bool stays_hidden;                   /* the parent can take descriptors all the same */
};

/* In the parent: checks process and translates the capabilities. Names the kernel does not know are
 * left out with a warning (config.md: a runtime should not fail on them). linux may be NULL. */
int workload_init(struct workload *workload, const struct oci_process *config,
                  const struct oci_linux *linux, char ***warnings, struct error *err);
void workload_finish(struct workload *workload);

/* Resource limits, scheduler and I/O priority of the child, or of the caller (pid 0). */
int workload_set_limits(pid_t pid, const struct workload *workload, struct error *err);
int workload_set_oom_score(int proc_fd, pid_t pid, const struct oci_process *config,
                           struct error *err);

/* The same for an unprivileged caller, in the process itself while that is dumpable. A score below
 * the caller's takes CAP_SYS_RESOURCE: it stays as it is then. */
int workload_set_own_oom_score(int proc_fd, const struct oci_process *config, struct error *err);

/* In the child: memory policy, personality, labels, no_new_privs, bounding set, groups, user,
 * umask, working directory, environment, the program's path. The permitted capabilities survive for
 * workload_execute. */
int workload_become(struct workload *workload, struct error *err);

/* In the child: closes the descriptors, installs the filter, sets the capabilities. The process is
 * the container's from then on. sync_fd and keep_fd (-1: none) are needed after that: a listener of
 * the filter and failures go over sync_fd to the parent. */
int workload_confine(struct workload *workload, const struct filter *filter, size_t filter_size,
                     int sync_fd, int keep_fd, struct error *err);

/* In the child: for a caller without CAP_SYS_PTRACE the process shows itself, to whoever is in the
 * container too: nothing of the host is left open but 0 to 2, the preserved ones and these two (-1:
 * none; keep_fd may be set only with sync_fd). */
void workload_show(unsigned preserve_fds, int sync_fd, int keep_fd);

/* In the child: executes. Returns only on failure. */
int workload_execute(struct workload *workload, struct error *err);

#endif
