/*
 * Links (--link): a container is told of others, under names of its choice. On the default bridge
 * by lines of its hosts file and by variables of its environment, for containers that are there and
 * run; on networks that were made as names in the name server, for it alone (nameserver.h). All on
 * the loop's thread but linked_rewrite_hosts().
 */
#ifndef ENGINE_LINKED_H
#define ENGINE_LINKED_H

#include "internal.h"

/* "NAME", "NAME:ALIAS" or, as inspect shows it, "/NAME:/OTHER/ALIAS": owned parts. -EINVAL. */
int linked_parse(const char *link, char **ret_name, char **ret_alias, struct error *err);
/* Whether all of them can be parsed. */
int linked_check(char *const *links, struct error *err);

/* For a new container, before its places are planned: those it names on the default bridge are
 * there, and are known by their IDs from now on. -EINVAL. */
int linked_resolve(struct container *container, struct error *err);

/* For a start on the default bridge: whether those that are left of them run there. -EINVAL. */
int linked_check_running(const struct container *container, struct error *err);

/* Owned lists; NULL: none. */
char **linked_environment(const struct container *container);
char **linked_hosts(const struct container *container);

/* Files of containers that are linked to this one and what stands there from now on: PATH, LINE,
 * PATH, LINE ... Owned; for linked_rewrite_hosts(), which blocks. */
char **linked_others(const struct container *container);
void linked_rewrite_hosts(char *const *others);

/* Of the specification; what runs keeps what it has of a link that is removed. */
bool linked_has(const struct container *container, const char *alias);
void linked_remove(struct container *container, const char *alias);

/* The specification as docker shows it: "/NAME:/OTHER/ALIAS", and nothing on made networks, where
 * they belong to the endpoint. */
void linked_show(const struct container *container, struct api_container_spec *spec);

#endif
