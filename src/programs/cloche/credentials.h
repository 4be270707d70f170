/*
 * docker's credential file and its helpers, as the user: ~/.docker/config.json (or
 * $DOCKER_CONFIG/config.json), which docker, podman and others share. The daemon never sees it:
 * only the credentials for one registry travel with a call.
 */
#ifndef CLOCHE_CREDENTIALS_H
#define CLOCHE_CREDENTIALS_H

#include <stdbool.h>

#include <base/error.h>
#include <schema/management.h>

#define CREDENTIALS_DOCKER "docker.io"

/* The registry that the name of an image says: docker.io when it says none. Owned. */
char *credentials_registry(const char *image);

/* The one that docker's words for it mean: "https://index.docker.io/v1/" is docker.io, "http://"
 * and a path are taken away. NULL: docker.io. Owned. */
char *credentials_server(const char *given);

/* *ret: owned; NULL when nothing is kept for the registry. Runs a helper where one is set: blocks.
 */
int credentials_find(const char *registry, struct api_credentials **ret, struct error *err);

/* All that the file knows of, as docker sends them with a build; what a helper does not give is
 * left out. *ret: owned list of *ret_count. */
void credentials_all(struct api_build_credentials ***ret, size_t *ret_count);

/* *ret_path: owned; the file that has them now in plain, NULL: a helper has them. */
int credentials_keep(const char *registry, const struct api_credentials *credentials,
                     char **ret_path, struct error *err);

/* 1: they were there and are gone now, 0: there were none. */
int credentials_forget(const char *registry, struct error *err);

#endif
