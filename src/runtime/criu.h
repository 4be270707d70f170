/*
 * criu(8), which saves processes to files and makes them again from those: its RPC
 * (criu.org/RPC, images/rpc.proto of criu) over a socket pair with `criu swrk`.
 */
#ifndef RUNTIME_CRIU_H
#define RUNTIME_CRIU_H

#include <runtime/runtime.h>
#include <schema/oci_config.h>

#include <base/buffer.h>
#include <base/error.h>
#include <base/process.h>

/* criu_req_type */
enum criu_request {
    CRIU_DUMP = 1,
    CRIU_RESTORE = 2,
    CRIU_PRE_DUMP = 4,
    CRIU_NOTIFY = 6,
    CRIU_VERSION = 10,
};

/* The fields of criu_opts that are used. */
enum criu_option {
    CRIU_IMAGES_DIR_FD = 1,
    CRIU_PID = 2,
    CRIU_LEAVE_RUNNING = 3,
    CRIU_EXT_UNIX_SK = 4,
    CRIU_TCP_ESTABLISHED = 5,
    CRIU_EVASIVE_DEVICES = 6,
    CRIU_SHELL_JOB = 7,
    CRIU_FILE_LOCKS = 8,
    CRIU_LOG_LEVEL = 9,
    CRIU_LOG_FILE = 10,
    CRIU_PAGE_SERVER = 11,
    CRIU_NOTIFY_SCRIPTS = 12,
    CRIU_ROOT = 13,
    CRIU_PARENT_IMAGE = 14,
    CRIU_TRACK_MEMORY = 15,
    CRIU_AUTO_DEDUP = 16,
    CRIU_WORK_DIR_FD = 17,
    CRIU_LINK_REMAP = 18,
    CRIU_EXTERNAL_MOUNT = 23,
    CRIU_MANAGE_CGROUPS = 24,
    CRIU_CGROUP_ROOT = 25,
    CRIU_RESTORE_SIBLING = 26,
    CRIU_INHERIT_FD = 27,
    CRIU_CGROUPS_MODE = 34,
    CRIU_EXTERNAL = 37,
    CRIU_EMPTY_NAMESPACES = 38,
    CRIU_JOIN_NAMESPACE = 39,
    CRIU_FREEZE_CGROUP = 44,
    CRIU_TCP_SKIP_IN_FLIGHT = 46,
    CRIU_LAZY_PAGES = 48,
    CRIU_ORPHAN_PTS_MASTER = 50,
    CRIU_CONFIG_FILE = 51,
    CRIU_LSM_PROFILE = 53,
    CRIU_LSM_MOUNT_CONTEXT = 63,
    CRIU_NETWORK_LOCK = 64,
};

enum {
    CRIU_FIRST_EXTRA_FD = 4, /* in criu, behind the standard descriptors and its socket */
    CRIU_EXTRA_FDS_MAX = 8,
    CRIU_MESSAGE_MAX = 1 << 16, /* bytes */
};

/* The folders of one request. */
struct criu_folders {
    int images_fd, work_fd; /* owned; work_fd -1: the images' */
    char *log;              /* owned; path of criu's log */
};

struct criu {
    struct process process;
    int fd; /* owned */
};

struct criu_event {
    const char *script; /* "post-dump", "orphan-pts-master" ...: criu.org/Action_scripts */
    pid_t pid;          /* of the restored process, when it says so */
    int fd;             /* a terminal's master, or -1; closed afterwards unless it is taken (-1) */
};

/* program: NULL: "criu" in PATH. extra_fds become CRIU_FIRST_EXTRA_FD and so on. Fails with a word
 * on what to install when it is not there. */
int criu_start(const char *program, const int *extra_fds, size_t count, struct criu *ret,
               struct error *err);

/* One request to its end; options may be NULL. on_event may fail, and criu then gives up. */
int criu_call(struct criu *criu, enum criu_request request, const struct buffer *options,
              int (*on_event)(struct criu_event *event, void *context, struct error *err),
              void *context, struct error *err);

/* Ends it: waits when it has succeeded, else kills it. */
void criu_finish(struct criu *criu, bool succeeded);

/* Opens the folders, makes them where they are missing. default_name: of the log, if the
 * configuration of criu names no other. */
int criu_open_folders(const struct cloche_runtime_criu_options *options, const char *log_name,
                      struct criu_folders *ret, struct error *err);
void criu_folders_finish(struct criu_folders *folders);

/* What both directions say. */
void criu_add_common(struct buffer *out, const struct cloche_runtime_criu_options *options,
                     const struct oci_config *config, const struct criu_folders *folders,
                     const char *log_name);
void criu_add_pair(struct buffer *out, enum criu_option option, const char *key, const char *value);

/* After a failure: lines of criu's log with errors, and some before each, as warnings. */
void criu_report_log(const struct criu_folders *folders, char ***warnings);

/* Which namespaces criu is to find there again: the one kind, by the configuration's path. */
const char *criu_namespace_path(const struct oci_config *config, const char *type);

#endif
