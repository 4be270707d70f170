/*
 * What daemon and monitor say to each other: SOCK_SEQPACKET, one message a packet, a header and a
 * fixed structure or text by type, descriptors beside it. Host byte order: both ends are on one
 * machine; sizes are exact, there is no padding.
 *
 * The daemon that starts a monitor gives it one end of a socketpair; later daemons connect to
 * BUNDLE/monitor.sock. One daemon at a time: whose HELLO came last has it, the other connection is
 * closed. A monitor whose daemon goes away before START ends; after it, it goes on alone.
 *
 * Every request is answered once, by number: MONITOR_OK or MONITOR_ERROR, but START by
 * MONITOR_STARTED or MONITOR_START_FAILED. Requests are answered in any order. Events carry request
 * 0. A reader that does not read (a full socket) loses the connection, never stops the monitor.
 *
 * Versions: the monitor takes messages with version MONITOR_PROTOCOL_VERSION and one below, and
 * answers with the version of the HELLO; anything else: MONITOR_ERROR -EPROTONOSUPPORT. Version 1
 * has no policy (START is empty, nothing is restarted or checked, the log has no limit), the
 * shorter forms of status and follow, and none of the requests and events marked 2.
 */
#ifndef MONITOR_PROTOCOL_H
#define MONITOR_PROTOCOL_H

#include <stdint.h>

enum {
    MONITOR_MAGIC = 0x434c4f4d, /* "MOLC" in memory */
    MONITOR_PROTOCOL_VERSION = 2,
    MONITOR_MESSAGE_MAX = 4096, /* header and payload */
    MONITOR_ID_SIZE = 72,       /* an id of at most 64 characters, its NUL, to a multiple of 8 */
    MONITOR_NAME_SIZE = 128,    /* a file name in the bundle and its NUL */
    MONITOR_CLIENTS_MAX = 256,  /* attached and following streams of one monitor */
    MONITOR_EXECS_MAX = 64,     /* exec sessions of one monitor at a time */
    MONITOR_LOG_FILES_MAX = 100,
    MONITOR_CHECKS_KEPT = 5,         /* files health.0 to health.4 in the bundle */
    MONITOR_CHECK_OUTPUT_MAX = 4096, /* bytes of a check's output that are kept, docker's */
};

struct monitor_header {
    uint32_t magic;
    uint16_t version;
    uint16_t type;    /* enum monitor_type */
    uint32_t request; /* chosen by the daemon, not 0; 0 in events */
    uint32_t length;  /* bytes after the header */
};

enum monitor_type {
    /* daemon -> monitor; payload, descriptors; payload of MONITOR_OK */
    MONITOR_HELLO = 1, /* none; OK: struct monitor_status. The first message of a connection */
    MONITOR_START,     /* struct monitor_policy; answered by STARTED or START_FAILED */
    MONITOR_ATTACH,    /* struct monitor_attach, the attach stream; OK: none. Also before START */
    MONITOR_FOLLOW,    /* struct monitor_follow, a SOCK_STREAM socket, and perhaps a file of older
                          lines, which come first; OK: none */
    MONITOR_SIGNAL,    /* struct monitor_signal; OK: none. -ESRCH: not running. SIGKILL and the
                          container's own stop signal end it for good, also while it waits for a
                          restart; others that come then have nobody to go to: OK */
    MONITOR_STOP,   /* struct monitor_stop; OK at once, EXITED (or START_FAILED) follows: it is not
                       restarted. Also while it waits for a restart or the runtime starts it:
                       SIGKILL then kills the runtime. Of several the shortest time counts.
                       -ESRCH: not running */
    MONITOR_RESIZE, /* struct monitor_resize; OK: none. -ENOTTY: no terminal */
    MONITOR_EXEC,   /* struct monitor_exec, its attach stream unless detached; OK: struct
                       monitor_pid when the process runs; ERROR: exit code 125, 126 or 127 as a
                       positive code when the runtime could not start it */
    MONITOR_STATUS, /* none; OK: struct monitor_status */
    MONITOR_UPDATE, /* 2: struct monitor_policy; OK: none. Restarts from now on; what it says of
                       log and check is not looked at */

    /* monitor -> daemon */
    MONITOR_OK = 64,
    MONITOR_ERROR,        /* struct monitor_error */
    MONITOR_STARTED,      /* struct monitor_pid; with request 0: it was restarted */
    MONITOR_START_FAILED, /* struct monitor_error, code 125, 126 or 127; the monitor then ends. Only
                             for the first start: a restart that fails is a run that ended so */
    MONITOR_EXITED,       /* event: struct monitor_exited. The container is deleted in the runtime,
                             BUNDLE/status is written, mounts and netns are released, monitor.sock is
                             gone; the monitor ends when followers have what they are owed */
    MONITOR_EXEC_EXITED, /* event: struct monitor_exec_exited. Ends that no daemon heard of are told
                            to the next one, before its HELLO is answered */
    MONITOR_EXEC_RUNNING, /* event: struct monitor_exec_running; those that run are told to the next
                             daemon, before its HELLO is answered */
    MONITOR_RESTARTING, /* event, 2: struct monitor_restarting. A run has ended and another will be
                           tried; STARTED or EXITED follows */
    MONITOR_HEALTH,     /* event, 2: struct monitor_health. Its status has changed */
    MONITOR_DETACHED,   /* event, 2: struct monitor_detached. A client has parted by its keys. A
                           daemon may not know it, and passes it over then */
};

enum monitor_state {
    MONITOR_STATE_CREATED = 1, /* START has not come yet */
    MONITOR_STATE_STARTING,    /* the runtime is at work */
    MONITOR_STATE_RUNNING,
    MONITOR_STATE_EXITED,
    MONITOR_STATE_RESTARTING, /* waits for its next run; version 1: STARTING */
};

enum monitor_health_status {
    MONITOR_HEALTH_NONE, /* nobody checks */
    MONITOR_HEALTH_STARTING,
    MONITOR_HEALTH_HEALTHY,
    MONITOR_HEALTH_UNHEALTHY,
};

/* Times: nanoseconds since the epoch, 0 when it has not happened. */
struct monitor_status {
    uint32_t state; /* enum monitor_state */
    int32_t pid;    /* of the container's init in this pid namespace; 0 when not running */
    int32_t monitor_pid;
    int32_t exit_code; /* exit status or 128 + signal; when EXITED */
    uint32_t oom;      /* 1: the kernel killed in its cgroup for want of memory */
    uint32_t health;   /* enum monitor_health_status; version 1: 0 */
    uint64_t started;
    uint64_t finished;
    uint64_t log_size; /* bytes in the log file in use */
    /* From here: 2. */
    uint32_t restarts;       /* since START, and those that START told of */
    uint32_t failing_streak; /* checks in a row that failed */
    uint64_t next_start;     /* RESTARTING: when it will be tried */
};

enum { MONITOR_STATUS_SIZE_1 = 48 }; /* of struct monitor_status in version 1 */

enum monitor_restart {
    MONITOR_RESTART_NO,
    MONITOR_RESTART_ALWAYS, /* unless stopped: what makes the two differ is the daemon's start */
    MONITOR_RESTART_ON_FAILURE,
};

enum {
    MONITOR_POLICY_WHEN_UNHEALTHY = 1 << 0, /* stopped and restarted when its check says so,
                                               whatever restart is; on-failure counts it */
};

/* A command that tells whether the container does its work. */
struct monitor_check {
    char process[MONITOR_NAME_SIZE]; /* file in the bundle with the OCI process document, which
                                        stays; "": no check */
    uint32_t interval_ms;            /* from the end of a check to the next; not 0 */
    uint32_t timeout_ms;             /* then it is killed and has failed; not 0 */
    uint32_t start_period_ms;        /* failures in it do not count, until it was healthy once */
    uint32_t start_interval_ms;      /* in place of interval_ms in that time; not 0 */
    uint32_t retries;                /* failures in a row that make it unhealthy; not 0 */
    uint32_t reserved;
};

struct monitor_policy {
    uint32_t restart;         /* enum monitor_restart */
    uint32_t flags;           /* MONITOR_POLICY_* */
    uint32_t maximum_retries; /* ON_FAILURE; 0: without end */
    uint32_t restarts;        /* before this monitor was started */
    uint32_t delay_ms;        /* before the first restart; doubled for each further one, not 0 */
    uint32_t delay_max_ms;
    uint32_t delay_reset_ms; /* after a run of this length: delay_ms again */
    uint32_t log_files;      /* with the one in use; 1 to MONITOR_LOG_FILES_MAX */
    uint64_t log_size;       /* of one of them; 0: without limit */
    struct monitor_check check;
};

struct monitor_restarting {
    int32_t exit_code;
    uint32_t oom;
    uint64_t started;
    uint64_t finished;
    uint64_t next_start;
    uint32_t restarts; /* with the one that comes */
    uint32_t reserved;
};

struct monitor_health {
    uint32_t status; /* enum monitor_health_status */
    uint32_t failing_streak;
};

struct monitor_error {
    int32_t code; /* negative errno, or where said 125, 126, 127 */
    char text[];  /* to the end of the message, not NUL-terminated; for a person */
};

struct monitor_pid {
    int32_t pid;
    uint32_t restarts; /* version 1: 0 */
    uint64_t started;
};

enum {
    MONITOR_ATTACH_STDIN = 1 << 0,
    MONITOR_ATTACH_STDOUT = 1 << 1,
    MONITOR_ATTACH_STDERR = 1 << 2,
    MONITOR_ATTACH_LOGS = 1 << 3, /* everything in the log first, then what comes */
};

/* Keys that part the client: when they come one after the other in what it types on a terminal, its
 * stream is closed, they do not reach the container, and its input stays open. */
enum { MONITOR_DETACH_KEYS_MAX = 16 };
struct monitor_detach {
    uint32_t count; /* 0: none */
    uint8_t keys[MONITOR_DETACH_KEYS_MAX];
};

/* The stream: a SOCK_STREAM Unix socket. Client -> container: raw stdin, half-close is its end.
 * Container -> client: raw bytes of a terminal, else frames: {stream 1 | 2, 0, 0, 0, length as
 * big-endian u32} and the data. Closed by the monitor when the container has ended, also when it
 * will be restarted, and everything was written. A slow client is served from the log and does not
 * hold the container up before the log has reached its limit: then nothing more is read from the
 * container until the client has taken what would be deleted. */
struct monitor_attach {
    uint32_t flags;
    struct monitor_detach detach; /* 2 */
};

enum { MONITOR_ATTACH_SIZE_1 = 4 }; /* of struct monitor_attach in version 1 */

/* With MONITOR_ATTACH_LOGS the log may begin in what monitors cannot read: a second descriptor has
 * everything before the file with this inode. A monitor that does not know it yet answers -EBADMSG.
 */
struct monitor_attach_before {
    struct monitor_attach attach;
    uint64_t inode;
};

enum { MONITOR_FOLLOW_NOT = 1 << 0 }; /* only what is there now */

/* The stream receives the log's bytes from a place on, as they are, through rotations and restarts,
 * and is closed after the container's last. One that is so slow that its place is deleted goes on
 * with the oldest that is left. An offset beyond the end: -ERANGE. */
struct monitor_follow {
    uint64_t offset; /* in the file */
    /* From here: 2. */
    uint64_t inode; /* the file's; 0: the one in use. One that is no more: the oldest there is */
    uint32_t flags; /* MONITOR_FOLLOW_* */
    uint32_t reserved;
};

enum { MONITOR_FOLLOW_SIZE_1 = 8 }; /* of struct monitor_follow in version 1 */

struct monitor_signal {
    uint32_t signal; /* 1 to 64, sent to the container's init */
};

struct monitor_stop {
    uint32_t signal;    /* 0: the container's own (--stop-signal) */
    int32_t timeout_ms; /* until SIGKILL; < 0: never; 0: SIGKILL at once */
};

struct monitor_resize {
    char exec[MONITOR_ID_SIZE]; /* "": the container's own terminal */
    uint16_t rows;
    uint16_t columns;
    uint32_t reserved;
};

enum {
    MONITOR_EXEC_TTY = 1 << 0,
    MONITOR_EXEC_STDIN = 1 << 1,     /* the stream is forwarded; else stdin is /dev/null */
    MONITOR_EXEC_DETACH = 1 << 2,    /* no stream; stdout and stderr go nowhere */
    MONITOR_EXEC_NO_STDOUT = 1 << 3, /* the stream is without it; nothing to monitors before */
    MONITOR_EXEC_NO_STDERR = 1 << 4,
};

struct monitor_exec {
    char id[MONITOR_ID_SIZE];        /* chosen by the daemon, unique in the monitor */
    char process[MONITOR_NAME_SIZE]; /* file in the bundle with the OCI process document, without a
                                        slash; removed by the monitor when it was read */
    uint32_t flags;
    uint16_t rows; /* 0: not set */
    uint16_t columns;
    struct monitor_detach detach; /* 2 */
};

enum { MONITOR_EXEC_SIZE_1 = MONITOR_ID_SIZE + MONITOR_NAME_SIZE + 8 }; /* in version 1 */

struct monitor_exec_exited {
    char id[MONITOR_ID_SIZE];
    int32_t exit_code;
    uint32_t reserved;
};

struct monitor_detached {
    char exec[MONITOR_ID_SIZE]; /* "": from the container */
};

struct monitor_exec_running {
    char id[MONITOR_ID_SIZE];
    int32_t pid; /* 0: the runtime is still at work */
    uint32_t reserved;
};

struct monitor_exited {
    int32_t exit_code;
    uint32_t oom;
    uint64_t started;
    uint64_t finished;
};

/*
 * Command line: cloche-monitor --protocol 2 --id ID --bundle DIR --runtime PATH --runtime-root DIR
 *   --log PATH [--log-packer PATH] [--tty] [--open-stdin] [--stdin-once] [--stop-signal N]
 *   [--stop-timeout SECONDS] [--memory-cgroup DIR] [--freezer FILE] [--join-user BUNDLE]
 *   [--join-pid BUNDLE] [--join-ipc BUNDLE] [--join-network BUNDLE] [--shm BYTES]
 *   [--shared-bind PATH]... [--volume DIR --subpath PATH]...
 *   --control-fd N [--rootfs-fd N] [--netns-fd N] [--userns-fd N] [--root-uid N] [--root-gid N]
 *
 * --log-packer: the program cloche-logpack: files of the log that are full are packed.
 * --join-*: the bundle of another container whose namespaces, and with IPC /dev/shm, are found
 * before each run and put on BUNDLE/userns, pidns, ipcns, netns and shm. --shm: a tmpfs of that
 * size for others.
 * --shared-bind: a peer of the mount at PATH is put on BUNDLE/bind.N, N from 0 on.
 *
 * --rootfs-fd: a detached mount (fsmount, open_tree), put on BUNDLE/rootfs (an existing directory);
 * --netns-fd: a network namespace, bound on BUNDLE/netns (created when missing); --userns-fd: a
 * user namespace, on BUNDLE/userns; all in the monitor's own mount namespace only. --root-uid and
 * --root-gid: what its root is on the machine, whose its pipes are. --memory-cgroup: the
 * container's cgroup folder with memory.oom_control (v1) or memory.events (v2), read at the end.
 * --freezer: freezer.state (v1) or cgroup.events (v2) of its cgroup: a paused container is not
 * checked. --stop-timeout: seconds, < 0: for ever. --protocol: the version that the daemon speaks
 * on --control-fd before it says HELLO. stdin and stdout /dev/null, stderr a file for complaints.
 * The runtime is called with
 * --root RUNTIME-ROOT --log BUNDLE/container.log (exec: exec-ID.log) --log-format json, working
 * directory BUNDLE. A daemon that took over while START or EXEC was at work hears of its result as
 * STARTED or START_FAILED with request 0; an exec that could not be started ends with the code 125,
 * 126 or 127 then.
 */

#endif
