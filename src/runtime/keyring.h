/*
 * The session keyring of a container (session-keyring(7)): the caller's would be the container's
 * otherwise. Its processes share the one that is called "_ses." and the container's name.
 */
#ifndef RUNTIME_KEYRING_H
#define RUNTIME_KEYRING_H

#include <stdbool.h>

#include <base/error.h>

enum keyring_use {
    KEYRING_MAKE, /* and let those who come later find it */
    KEYRING_JOIN,
};

/* In the child, as the container's root. own_users: the container has a user namespace of its own.
 * selinux_label may be NULL. A kernel without keyrings is no error. */
int keyring_enter(enum keyring_use use, const char *id, bool own_users, int proc_fd,
                  const char *selinux_label, struct error *err);

#endif
