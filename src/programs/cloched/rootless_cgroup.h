/*
 * The cgroup of an ordinary user's engine, where the user's systemd delegates one (cgroup v2).
 */
#ifndef CLOCHED_ROOTLESS_CGROUP_H
#define CLOCHED_ROOTLESS_CGROUP_H

#include <sys/types.h>

#include <base/instance.h>

/* Outside, by one launcher at a time: this process goes into the cgroup of the instance, which it
 * makes unless there is one; rootless_cgroup_parent() knows of it from then on, in what this
 * process executes. Where there is none to be had that is logged. holder: 0: none lives. One that
 * lives without a cgroup is taken into a new one, unless it has containers, which would stay
 * without. */
void rootless_cgroup_enter(const struct instance *instance, const char *libexec, pid_t holder);

/* For the containers; NULL: there is none. Owned by the caller. */
char *rootless_cgroup_parent(void);

#endif
