/*
 * User namespaces of containers: which mapping a container gets when it is created, and the
 * namespace itself when it starts.
 *
 * A range that a container's record names is its own until the record is gone; nothing else keeps
 * account of them.
 */
#ifndef ENGINE_USERNS_H
#define ENGINE_USERNS_H

#include <store/snapshot.h>

#include "internal.h"
#include "user.h"

/* Sets record->user_namespace of a container that is being created, by its specification and the
 * engine's settings; NULL: the machine's users. Reads /etc/subuid and /etc/subgid. -EINVAL in
 * dockerd's words: what it shares with the machine excludes a user namespace; -ENOENT, -ENOSPC:
 * there are no IDs, or none free. */
int userns_choose(struct container *container, struct error *err);

/* "0:100000:65536" of users and of groups behind a blank, for the snapshot's record. Owned by the
 * caller; NULL: none. */
char *userns_text(const struct container *container);

/* Whether containers that do not say get a mapping that all of them share (dockerd's remap). */
bool userns_is_default(const struct engine *engine);

/* What only shows when it starts: -EINVAL: the user, or a group of it, is none of the container's.
 */
int userns_check(const struct container *container, const struct user *user, struct error *err);

/* What a start holds until the monitor has it. */
struct userns {
    struct store_users users; /* namespace_fd -1: none */
    int netns_fd;             /* of a new one: a network namespace that belongs to it; else -1 */
};
#define USERNS_INIT                                                                                \
    {                                                                                              \
        .users = {.namespace_fd = -1}, .netns_fd = -1                                              \
    }

/* The container whose namespaces it shares, which has to be in the same user namespace: NULL when
 * there is none, or none of that name yet. Which one that is the monitor finds for each run. */
struct container *userns_partner(const struct container *container);

/* A new one, by a child that lives for the moment of it (0.5 ms). With a partner it is only for the
 * owners of its files. Does nothing for a container without. userns_close() in any case. */
int userns_open(const struct container *container, struct userns *ret, struct error *err);

/* A new one of the same mapping, for a worker in its files. -1: it has none. Any thread. */
int userns_open_mapping(const struct api_id_mappings *mappings, int *ret_fd, struct error *err);
void userns_close(struct userns *userns);

#endif
