/*
 * What a request asks for: "/v1.41/containers/json?all=1" as a version, a path and parameters.
 */
#ifndef DOOR_DOCKER_TARGET_H
#define DOOR_DOCKER_TARGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    TARGET_PARAMETERS_MAX = 256,
    DOCKER_API_MAX = 44, /* of 1.N */
    DOCKER_API_MIN = 22, /* as the docker-daemon: transport of skopeo and buildah says */
};

struct target {
    bool versioned;
    unsigned major, minor; /* as the client says; without that: the newest */
    char *path;            /* owned: without the version; decoded */
    char **keys;           /* owned; decoded */
    char **values;
};

/* false: it makes no sense (a wrong %-code, or one of a NUL; too much of it). */
bool target_parse(const char *text, struct target *ret);
void target_finish(struct target *target);

/* The first value of a parameter; NULL: it is not there. */
const char *target_text(const struct target *target, const char *key);
/* As dockerd understands it: there, and not "", 0, no, false or none. */
bool target_flag(const struct target *target, const char *key);
/* `fallback` when it is not there, or is no number. */
int64_t target_number(const struct target *target, const char *key, int64_t fallback);
/* All values of a parameter: a list, owned by the caller. */
char **target_list(const struct target *target, const char *key);

#endif
