/*
 * User namespaces: who is who in them (user_namespaces(7)).
 *
 * Root writes the maps itself. An ordinary user may map itself, alone; everything else is written
 * by newuidmap and newgidmap, which are set-user-ID and go by /etc/subuid and /etc/subgid.
 */
#ifndef RUNTIME_USERS_H
#define RUNTIME_USERS_H

#include <sys/types.h>

#include <base/error.h>

struct oci_linux;
struct oci_user;

/* A new user namespace without mappings has the caller alone, as its root: what crun makes of such
 * a configuration. runc refuses it. Called for every configuration that is read. */
void users_fill_maps(struct oci_linux *config);

/* Writes uid_map and gid_map of a process in a new user namespace. proc_fd: the host's /proc. The
 * process has to be dumpable for it unless the caller is root. */
int users_map(int proc_fd, pid_t pid, const struct oci_linux *config, struct error *err);

/* In a process that has just come into a user namespace: becomes its root, or, where nobody is
 * root, the given user (NULL: 0). Supplementary groups are dropped where that is allowed, unless
 * they are kept. */
int users_become_root(const struct oci_user *user, bool keeps_groups, struct error *err);

/* In a process in a joined user namespace: that the mappings of the configuration, when there are
 * any, are those of the namespace. */
int users_check_joined(int proc_fd, const struct oci_linux *config, struct error *err);

#endif
