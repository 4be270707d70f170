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
#include <schema/cni.h>
#include <schema/management.h>

#include "user.h"

/* Which namespace of a kind a container is in. */
struct bundle_namespace {
    enum bundle_namespace_kind {
        BUNDLE_OWN,    /* a new one */
        BUNDLE_HOST,   /* the machine's */
        BUNDLE_JOINED, /* that at path */
    } kind;
    const char *path;
};

/* A device of the machine that the container has, as it was found. */
struct bundle_device {
    const char *path;   /* in the container */
    const char *source; /* on the machine */
    char type;          /* b or c */
    uint32_t major, minor;
    uint32_t mode; /* permissions */
    uint32_t uid, gid;
    const char *access; /* of r, w, m */
};

/* A limit of resources that names a device, with the device's number. */
struct bundle_limit {
    enum bundle_limit_kind {
        BUNDLE_WEIGHT,
        BUNDLE_READ_BPS,
        BUNDLE_WRITE_BPS,
        BUNDLE_READ_IOPS,
        BUNDLE_WRITE_IOPS,
    } kind;
    uint32_t major, minor;
    uint64_t value;
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
    const char *bundle;          /* the folder of config.json; absolute */
    const char *rootfs;          /* absolute */
    const char *files_directory; /* holds hosts, hostname and resolv.conf */
    char *const *shared_files; /* bundle_files of another container, whose network it shares; NULL:
                                  those of files_directory */
    const char *cgroup_parent; /* without slashes at the ends; NULL: it can have no cgroup */
    const struct api_container_spec *effective; /* merged (spec.h) */
    const struct user *user;                    /* resolved */
    bool rootless;                              /* the engine is root of a user namespace only */
    struct bundle_namespace network, pid, ipc, uts, cgroup;
    const struct api_id_mappings *users; /* NULL: the machine's */
    const char *users_path;              /* the user namespace with that mapping */
    const char *shm;                     /* folder that is /dev/shm; NULL: by ipc and ipcMode */
    const struct bundle_device *devices;
    size_t devices_count;
    const struct bundle_limit *limits;
    size_t limits_count;
    const char *apparmor;          /* profile where none is named; NULL: none */
    const char *volumes_directory; /* ROOT/volumes */
    const struct bundle_mount *mounts;
    size_t mounts_count;
    char *const *linked; /* variables about other containers (linked.h); NULL: none */
    const char *init;    /* the program that is its first process (--init); NULL: its own is */
};

/* The whole config.json. -EINVAL: a seccomp profile or a word of securityOpt makes no sense. */
int bundle_write_config(const struct bundle_facts *facts, struct buffer *out, struct error *err);

/* Whether what is mounted below a bind of the container is to be seen outside. The monitor holds
 * the sources of these as bind.0, bind.1 and so on in the bundle, in the order of the mounts. Pure.
 */
bool bundle_is_shared(const struct api_mount *mount);
/* Whether it is a part of a volume only: its source is held so, too. Pure. */
bool bundle_has_subpath(const struct api_mount *mount);
/* Whether in a container with a user namespace what is on disk there has the container's IDs: in
 * volumes, but for what a volume's options mount, and in binds that ask for it. Else it is the
 * machine's, and so are the rights to it. Pure. */
bool bundle_is_mapped(const struct api_mount *mount);

/* Of /dev/shm, in bytes. Pure. */
uint64_t bundle_shm_size(const struct api_container_spec *effective);

/* The limits alone, as `cloche-runtime update` takes them. */
void bundle_write_limits(const struct api_resources *resources, const struct bundle_limit *limits,
                         size_t limits_count, struct buffer *out);

/* Whether there are any. */
bool bundle_has_limits(const struct api_resources *resources, const struct bundle_limit *limits,
                       size_t limits_count);

/* An exec session's process. NULL and 0 stand for the container's own. */
struct bundle_exec {
    char *const *command;
    char *const *env; /* added to the container's */
    char *const *linked;
    const char *working_dir;
    const struct user *user;
    bool tty;
    bool privileged;      /* all capabilities */
    const char *apparmor; /* as of bundle_facts */
    uint16_t rows, columns;
};

/* process.json. Pure. */
void bundle_write_process(const struct api_container_spec *effective,
                          const struct bundle_exec *exec, struct buffer *out);

/* Where a container sits on a network. */
struct bundle_place {
    struct in_addr address;
    struct in_addr gateway; /* the machine, as it sees it */
    bool names;             /* a name server of ours answers at NET_NAMES_ADDRESS */
    char *const *linked;    /* lines about other containers; NULL: none */
    struct cni_dns *dns;    /* what its network says of that; NULL: nothing */
};

enum { BUNDLE_FILES = 3 };
extern const char *const bundle_files[BUNDLE_FILES]; /* names in files_directory and in /etc */

/* Writes hosts, hostname and resolv.conf into directory_fd. place: NULL without a bridge. Blocks
 * for small files of our own and the machine's /etc/resolv.conf. */
int bundle_write_files(int directory_fd, const struct api_container_spec *effective,
                       const struct bundle_place *place, struct error *err);

/* Reads one of them, which the container may hold a lease on: that is not waited for (fcntl(2)),
 * but -EAGAIN. */
int bundle_read_file(int directory_fd, const char *name, size_t limit, char **ret,
                     struct error *err);

/* For a container that runs and has names from now on: its resolv.conf says so, unless somebody in
 * the container has changed it. files_directory: what bundle_write_files() wrote to. Blocks. */
int bundle_begin_names(const char *files_directory, const struct api_container_spec *effective,
                       struct error *err);

/* The machine's resolv.conf as a container can use it that has its own network: name servers on
 * loopback addresses are left out; when none remains, docker's fallback. What the specification
 * says of DNS takes the place of what the machine has. Pure; owned by the caller. */
char *bundle_resolv_conf(const char *machine, const struct api_container_spec *effective,
                         bool own_network);

/* -EINVAL: dns, dnsSearch, dnsOptions or extraHosts make no sense. Pure. */
int bundle_check_files(const struct api_container_spec *spec, struct error *err);

/* Where the first process of --init lies in the container: in its /dev, which is no part of its
 * files, unless /dev is the user's. Pure. */
const char *bundle_init_path(const struct api_container_spec *effective);

#endif
