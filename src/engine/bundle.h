/*
 * What a container's runtime gets to read: config.json with docker's defaults, process.json of an
 * exec session, and the files bound over /etc/hosts, /etc/hostname and /etc/resolv.conf.
 */
#ifndef ENGINE_BUNDLE_H
#define ENGINE_BUNDLE_H

#include <netinet/in.h>
#include <stdbool.h>

#include <base/buffer.h>
#include <base/error.h>
#include <schema/management.h>

#include "user.h"

enum bundle_network {
    BUNDLE_NETWORK_HOST,    /* shares the machine's */
    BUNDLE_NETWORK_PRIVATE, /* joins the namespace at netns_path */
};

/* A directory of the machine that an image wants to see (the image `host`: /usr, read-only). */
struct bundle_mount {
    const char *source;
    const char *target;
    bool read_only;
};

/* All that decides a config.json. Nothing is owned. */
struct bundle_facts {
    const char *id;
    const char *rootfs;                         /* absolute */
    const char *files_directory;                /* holds hosts, hostname and resolv.conf */
    const char *cgroup_parent;                  /* without slashes at the ends */
    const struct api_container_spec *effective; /* merged (spec.h) */
    const struct user *user;                    /* resolved */
    enum bundle_network network;
    const char *netns_path;
    bool cgroup_v2; /* the machine has a unified hierarchy only */
    const struct bundle_mount *mounts;
    size_t mounts_count;
};

/* The whole config.json. Pure. */
void bundle_write_config(const struct bundle_facts *facts, struct buffer *out);

/* An exec session's process. NULL and 0 stand for the container's own. */
struct bundle_exec {
    char *const *command;
    char *const *env; /* added to the container's */
    const char *working_dir;
    const struct user *user;
    bool tty;
    bool privileged; /* all capabilities */
    uint16_t rows, columns;
};

/* process.json. Pure. */
void bundle_write_process(const struct api_container_spec *effective,
                          const struct bundle_exec *exec, struct buffer *out);

/* Writes hosts, hostname and resolv.conf into directory_fd. address: NULL without a bridge. Blocks
 * for small files of our own and the machine's /etc/resolv.conf. */
int bundle_write_files(int directory_fd, const struct api_container_spec *effective,
                       const struct in_addr *address, struct error *err);

/* The machine's resolv.conf as a container on a bridge can use it: name servers on loopback
 * addresses are left out; when none remains, docker's fallback. Pure; owned by the caller. */
char *bundle_resolv_conf(const char *machine);

/* Whether option is one of docker's -v options. */
bool bundle_bind_option_known(const char *option);

#endif
