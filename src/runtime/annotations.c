#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include <schema/oci_config.h>

#include <base/alloc.h>
#include <base/text.h>

#include "annotations.h"

char *const annotation_names[] = {ANNOTATION_CRIU_CONFIG,
#if CLOCHE_SYSTEMD
                                  ANNOTATION_SYSTEMD_PROPERTY,
#endif
                                  ANNOTATION_HOOKS_STDERR,
                                  ANNOTATION_HOOKS_STDOUT,
                                  ANNOTATION_KEEP_GROUPS,
                                  ANNOTATION_CONTEXT_TYPE,
                                  ANNOTATION_PIDFD_RECEIVER,
                                  ANNOTATION_SECCOMP_RECEIVER,
                                  ANNOTATION_SECCOMP_FAIL,
                                  ANNOTATION_DELEGATE,
#if CLOCHE_SYSTEMD
                                  ANNOTATION_SUBGROUP,
#endif
                                  NULL};

static char *const context_types[] = {"context", "fscontext", "defcontext", "rootcontext", NULL};

const char *annotation_value(const struct json_string_map *annotations, const char *name)
{
    for (size_t i = 0; annotations && i < annotations->count; i++) {
        if (text_equal(annotations->keys[i], name))
            return annotations->values[i];
    }
    return NULL;
}

/* A path below the container's cgroup; an empty one is none. */
static int check_below(const struct oci_config *config, const char *name, struct error *err)
{
    const char *path = annotation_value(config->annotations, name);
    _cleanup_strv_ char **parts = text_empty(path) ? NULL : strv_split(path, '/');

    if (text_empty(path) || (path[strspn(path, "/")] && !strv_contains(parts, "..") &&
                             !strv_contains(parts, ".") && strlen(path) < PATH_MAX / 2))
        return 0;
    return error_set(err, -EINVAL, "annotations: %s: '%s' is no path below the container's cgroup",
                     name, path);
}

int annotations_check(const struct oci_config *config, struct error *err)
{
    const char *type = annotation_value(config->annotations, ANNOTATION_CONTEXT_TYPE);
    const char *receiver = annotation_value(config->annotations, ANNOTATION_SECCOMP_RECEIVER);

    if (type && !strv_contains(context_types, type))
        return error_set(err, -EINVAL,
                         "annotations: " ANNOTATION_CONTEXT_TYPE
                         ": '%s' is none of context, fscontext, defcontext and rootcontext",
                         type);
    if (receiver && receiver[0] != '/')
        return error_set(
            err, -EINVAL,
            "annotations: " ANNOTATION_SECCOMP_RECEIVER ": '%s' is not an absolute path", receiver);
    int r = check_below(config, ANNOTATION_SUBGROUP, err);
    return r < 0 ? r : check_below(config, ANNOTATION_DELEGATE, err);
}

void annotations_apply(struct oci_config *config)
{
    const char *receiver = annotation_value(config->annotations, ANNOTATION_SECCOMP_RECEIVER);
    struct oci_seccomp *seccomp = config->linux ? config->linux->seccomp : NULL;

    if (receiver && seccomp && text_empty(seccomp->listener_path)) {
        free(seccomp->listener_path);
        seccomp->listener_path = xstrdup(receiver);
    }
}
