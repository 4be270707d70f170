/*
 * From what was asked for and what the image says to what will run: docker's merging rules. Pure.
 */
#ifndef ENGINE_SPEC_H
#define ENGINE_SPEC_H

#include <base/error.h>
#include <schema/management.h>
#include <schema/oci_image.h>

/* Limits of a specification; the RPC server bounds the whole message at 1 MiB before. */
enum {
    SPEC_MOUNTS_MAX = 256,
    SPEC_DEVICES_MAX = 256, /* of each list of devices */
    SPEC_PORTS_MAX = 1024,
    SPEC_IMAGE_ENTRIES_MAX = 4096, /* of an image in one list: variables, labels, ports */
    SPEC_ULIMITS_MAX = 64,
    ULIMIT_NAME_MAX = 16,   /* characters */
    SPEC_LABELS_MAX = 1024, /* every event of the container has them all */
    SPEC_LABELS_BYTES_MAX = 128 * 1024,
    SPEC_MEMORY_MIN = 6 * 1024 * 1024, /* docker's: less does not even start a process */
};

/* What an image says about its processes. Nothing is owned; all may be NULL. */
struct image_defaults {
    char *const *entrypoint;
    char *const *command;
    char *const *env;
    const struct json_string_map *labels;
    const struct oci_image_set *exposed_ports;
    const char *working_dir;
    const char *user;
    const char *stop_signal;
    const struct oci_image_healthcheck *healthcheck;
};

/* Whether the request makes sense by itself. cpus: CPUs of this machine. -EINVAL with a message. */
int spec_check(const struct api_container_spec *spec, unsigned cpus, struct error *err);

/* The same for limits only, also of an update. */
int spec_check_resources(const struct api_resources *resources, unsigned cpus, struct error *err);

/* storageOpt's size in bytes (docker's units); 0: not limited. -EINVAL for what is no size, and for
 * options that docker's overlay2 does not know either. */
int spec_disk_limit(const struct api_container_spec *spec, uint64_t *ret, struct error *err);

/* The same for what is wished for places on networks (spec_endpoints.c): addresses, of which
 * nobody knows yet whether the networks have them. -EINVAL. */
int spec_check_endpoints(const struct api_container_spec *spec, struct error *err);
int spec_check_endpoint(const struct api_endpoint *wanted, struct error *err);

/* Writes the link-local addresses that are wished for into the link. -EINVAL. */
struct net_interface;
int spec_link_local(const struct api_endpoint *wanted, struct net_interface *to, struct error *err);

/* The specification with the image's defaults and ours merged in: a deep copy, owned by the caller
 * (api_container_spec_free). -EINVAL: nothing says which program to run. */
int spec_merge(const struct api_container_spec *spec, const struct image_defaults *image,
               const char *container_id, struct api_container_spec **ret, struct error *err);

/* binds, volumes and tmpfs become mounts, whose paths are cleaned and which are put in order,
 * parents first (spec_mounts.c); nothing more happens when they are that already. -EINVAL. */
int spec_settle_mounts(struct api_container_spec *spec, struct error *err);

/* An absolute path without empty and "." parts and trailing slashes, ".." taken out. Owned by the
 * caller. */
char *spec_clean_path(const char *path);

/* A deep copy. */
struct api_container_spec *spec_copy(const struct api_container_spec *spec);

/* Entrypoint and command of a merged specification. Owned by the caller. */
char **spec_arguments(const struct api_container_spec *effective);

/* The environment of the first process of a merged specification: docker's defaults (PATH,
 * HOSTNAME, TERM with a terminal), then its own, then HOME when nobody set it. Owned by the caller.
 */
char **spec_environment(const struct api_container_spec *effective, char *const *linked,
                        const char *home);

/* base with each NAME=value of changes replaced or added, and each bare NAME removed. Owned by the
 * caller. */
char **environment_merge(char *const *base, char *const *changes);

/* "TERM", "SIGTERM", "15", "RTMIN+3" -> number. -EINVAL with a message. */
int signal_parse(const char *text, struct error *err);

#endif
