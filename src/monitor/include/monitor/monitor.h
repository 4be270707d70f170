/*
 * cloche-monitor's whole life. Links libc and base only and keeps its memory small: there is one of
 * these processes beside every running container.
 */
#ifndef MONITOR_MONITOR_H
#define MONITOR_MONITOR_H

#include <stdbool.h>
#include <stdint.h>

/* What is shared with another container. */
enum monitor_joined {
    MONITOR_JOINED_USER, /* what the others belong to */
    MONITOR_JOINED_PID,
    MONITOR_JOINED_IPC, /* with /dev/shm */
    MONITOR_JOINED_NETWORK,
    MONITOR_JOINED_COUNT,
};

enum { MONITOR_BINDS_MAX = 256 };

/* Strings must stay valid; descriptors are taken over, -1: none. See protocol.h, "Command line". */
struct monitor_options {
    const char *id;
    const char *bundle;
    const char *runtime;
    const char *runtime_root;
    const char *log;
    const char *log_packer;    /* the program cloche-logpack; NULL: nothing is packed */
    const char *memory_cgroup; /* or NULL */
    const char *freezer;       /* or NULL */
    const char *joined[MONITOR_JOINED_COUNT]; /* bundles of other containers, or NULL */
    uint64_t shm_size; /* of a /dev/shm that others may share, in bytes; 0: none */
    struct monitor_bind {
        const char *path;
        const char *subpath; /* of a volume; NULL: all of it, whose mounts go to and fro */
        bool volume;
    } binds[MONITOR_BINDS_MAX];
    unsigned binds_count;
    unsigned protocol; /* the daemon's version */
    bool tty;
    bool open_stdin;
    bool stdin_once;
    int stop_signal;
    int stop_timeout_ms; /* < 0: for ever */
    int control_fd;
    int rootfs_fd;
    int netns_fd;
    int userns_fd;
    uint32_t root_uid, root_gid; /* what its root is on the machine */
};

/* Runs until the container has ended and everybody has been told, or the daemon went away before
 * START. Complaints go through base/log.h. Returns the exit status for main(). To be called once in
 * a process of its own: it changes session, mount namespace, signal mask and more. */
int monitor_run(const struct monitor_options *options);

#endif
