/*
 * Passwords for git, of the address and of the proxy: command lines, on which all users of the
 * machine can read them, and the repository's own configuration have none of them. git gets them
 * by its environment, as settings (GIT_CONFIG_COUNT, which git knows from 2.31 on).
 */
#ifndef REGISTRY_GIT_SECRETS_H
#define REGISTRY_GIT_SECRETS_H

#include <base/error.h>

/* *ret_url: url without what is before its host's "@", owned. To *environment (owned) is appended
 * what git needs for the rest of it and for the proxy (NULL: none). -EINVAL: user or password are
 * no text of one line. */
int git_hide_secrets(const char *url, const char *proxy, char **ret_url, char ***environment,
                     struct error *err);

#endif
