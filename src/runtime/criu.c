#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/socket.h>
#include <base/text.h>

#include "annotations.h"
#include "criu.h"
#include "protobuf.h"

/* An administrator who writes criu's settings for containers has done so for one of these. */
#define CRUN_CONFIG_FILE "/etc/criu/crun.conf"
#define RUNC_CONFIG_FILE "/etc/criu/runc.conf"

enum {
    LOG_LEVEL = 4,
    LOG_FILE_MAX = 64 << 20, /* bytes */
    LOG_LINES_BEFORE = 5,    /* shown before each line with an error */
    LOG_LINES_MAX = 60,
    NETWORK_LOCK_NFTABLES = 2,
    CGROUPS_MODE_DEFAULT = 6,
};

/* criu_req */
enum { REQUEST_TYPE = 1, REQUEST_OPTIONS = 2, REQUEST_NOTIFY_SUCCESS = 3 };
/* criu_resp */
enum { ANSWER_TYPE = 1, ANSWER_SUCCESS = 2, ANSWER_NOTIFY = 5, ANSWER_ERRNO = 7, ANSWER_TEXT = 9 };
/* criu_notify */
enum { NOTIFY_SCRIPT = 1, NOTIFY_PID = 2 };
/* ext_mount_map, inherit_fd, join_namespace, cgroup_root */
enum { PAIR_KEY = 1, PAIR_VALUE = 2 };

struct answer {
    uint64_t type;
    bool success;
    int number; /* cr_errno */
    char *text; /* owned */
    char *script;
    pid_t pid;
};

int criu_start(const char *program, const int *extra_fds, size_t count, struct criu *ret,
               struct error *err)
{
    int pair[2], fds[CRIU_FIRST_EXTRA_FD + CRIU_EXTRA_FDS_MAX] = {0, 1, 2};
    const char *path = text_empty(program) ? "criu" : program;

    if (count > CRIU_EXTRA_FDS_MAX)
        return error_set(err, -E2BIG, "more than %d namespaces to join", CRIU_EXTRA_FDS_MAX);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return error_errno(err, errno, "create a socket pair");
    _cleanup_close_ int own_fd = pair[0], other_fd = pair[1];
    fds[CRIU_FIRST_EXTRA_FD - 1] = other_fd;
    memcpy(fds + CRIU_FIRST_EXTRA_FD, extra_fds, count * sizeof(*fds));
    const struct process_spec spec = {
        .path = path,
        .argv = (char *const[]){"criu", "swrk", "3", NULL},
        .fds = fds,
        .fds_count = CRIU_FIRST_EXTRA_FD + (int)count,
    };
    int r = process_spawn(&spec, &ret->process, err);
    if (r == -ENOENT) {
        error_set(err, r, "criu (%s) not found", path);
        error_hint(err, "install the package criu, or name the program with --criu");
    }
    if (r == 0)
        ret->fd = steal_fd(&own_fd);
    return r;
}

void criu_finish(struct criu *criu, bool succeeded)
{
    close_fd(criu->fd);
    if (!succeeded)
        kill(criu->process.pid, SIGKILL);
    process_wait(&criu->process, &(int){0}, NULL);
}

static int parse_notify(struct answer *answer, const struct protobuf_field *message)
{
    struct protobuf_reader reader = {message->data, message->data + message->length};
    struct protobuf_field field;
    int r;

    while ((r = protobuf_next(&reader, &field)) > 0) {
        if (field.number == NOTIFY_SCRIPT && field.data && !answer->script)
            answer->script = xasprintf("%.*s", (int)field.length, (const char *)field.data);
        else if (field.number == NOTIFY_PID)
            answer->pid = (pid_t)field.value;
    }
    return r;
}

static int parse_answer(struct answer *answer, const uint8_t *data, size_t length)
{
    struct protobuf_reader reader = {data, data + length};
    struct protobuf_field field;
    int r;

    while ((r = protobuf_next(&reader, &field)) > 0) {
        if (field.number == ANSWER_TYPE)
            answer->type = field.value;
        else if (field.number == ANSWER_SUCCESS)
            answer->success = field.value;
        else if (field.number == ANSWER_ERRNO)
            answer->number = (int)field.value;
        else if (field.number == ANSWER_TEXT && field.data && !answer->text)
            answer->text = xasprintf("%.*s", (int)field.length, (const char *)field.data);
        else if (field.number == ANSWER_NOTIFY && field.data && parse_notify(answer, &field) < 0)
            return -EBADMSG;
    }
    return r;
}

static int send_request(struct criu *criu, enum criu_request request, const struct buffer *options,
                        bool notified, struct error *err)
{
    _cleanup_buffer_ struct buffer message = BUFFER_INIT;

    protobuf_add_number(&message, REQUEST_TYPE, request);
    if (options)
        protobuf_add_message(&message, REQUEST_OPTIONS, options);
    if (request == CRIU_NOTIFY)
        protobuf_add_number(&message, REQUEST_NOTIFY_SUCCESS, notified);
    if (message.length > CRIU_MESSAGE_MAX)
        return error_set(err, -E2BIG, "criu: a request of more than %d bytes", CRIU_MESSAGE_MAX);
    ssize_t n = socket_send(criu->fd, message.data, message.length, NULL, 0);
    if (n == -EPIPE || n == -ECONNRESET)
        return error_set(err, -EPIPE, "criu ended without an answer");
    return n < 0 ? error_errno(err, (int)-n, "criu: send a request") : 0;
}

/* 1: an event was served; 0: the request has succeeded. */
static int serve_answer(struct criu *criu, enum criu_request request, struct answer *answer,
                        int *fd,
                        int (*on_event)(struct criu_event *event, void *context, struct error *err),
                        void *context, struct error *err)
{
    if (answer->type != CRIU_NOTIFY && answer->type != request)
        return error_set(err, -EPROTO, "criu: an answer of type %llu",
                         (unsigned long long)answer->type);
    if (!answer->success)
        return error_set(err, -EIO, "criu failed: type %s errno %d%s%s",
                         request == CRIU_RESTORE    ? "RESTORE"
                         : request == CRIU_PRE_DUMP ? "PRE_DUMP"
                         : request == CRIU_VERSION  ? "VERSION"
                                                    : "DUMP",
                         answer->number, answer->text ? ": " : "",
                         answer->text ? answer->text : "");
    if (answer->type != CRIU_NOTIFY)
        return 0;
    struct criu_event event = {
        .script = answer->script ? answer->script : "", .pid = answer->pid, .fd = *fd};
    int r = on_event ? on_event(&event, context, err) : 0;
    *fd = event.fd;
    int sent = send_request(criu, CRIU_NOTIFY, NULL, r == 0, r == 0 ? err : NULL);
    return r < 0 ? r : sent < 0 ? sent : 1;
}

int criu_call(struct criu *criu, enum criu_request request, const struct buffer *options,
              int (*on_event)(struct criu_event *event, void *context, struct error *err),
              void *context, struct error *err)
{
    _cleanup_free_ uint8_t *data = xmalloc(CRIU_MESSAGE_MAX);
    int r = send_request(criu, request, options, false, err);

    for (bool again = r == 0; again; again = r > 0) {
        struct answer answer = {0};
        _cleanup_close_ int fd = -1;
        size_t fds_count = 1;
        ssize_t n = socket_receive(criu->fd, data, CRIU_MESSAGE_MAX, &fd, &fds_count);
        if (n <= 0)
            return n < 0 && n != -ECONNRESET
                       ? error_errno(err, (int)-n, "criu: wait for an answer")
                       : error_set(err, -EPIPE, "criu ended without an answer");
        if (parse_answer(&answer, data, (size_t)n) < 0)
            r = error_set(err, -EPROTO, "criu: an answer that is no message");
        else
            r = serve_answer(criu, request, &answer, &fd, on_event, context, err);
        free(answer.text);
        free(answer.script);
    }
    return r;
}

/* --- folders and log -------------------------------------------------------------------------- */

static int open_folder(const char *path, struct error *err)
{
    int r = file_mkdir_parents(path, 0700, err);
    int fd = r < 0 ? r : open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return r < 0 ? r : fd < 0 ? error_errno(err, errno, "open %s", path) : fd;
}

int criu_open_folders(const struct cloche_runtime_criu_options *options, const char *log_name,
                      struct criu_folders *ret, struct error *err)
{
    const char *images = text_empty(options->image_path) ? "checkpoint" : options->image_path;

    *ret = (struct criu_folders){.images_fd = -1, .work_fd = -1};
    int fd = ret->images_fd = open_folder(images, err);
    if (fd >= 0 && !text_empty(options->work_path))
        fd = ret->work_fd = open_folder(options->work_path, err);
    if (fd < 0) {
        criu_folders_finish(ret);
        return fd;
    }
    ret->log = xasprintf("%s/%s", ret->work_fd < 0 ? images : options->work_path, log_name);
    return 0;
}

void criu_folders_finish(struct criu_folders *folders)
{
    close_fd(folders->images_fd);
    close_fd(folders->work_fd);
    free(folders->log);
    *folders = (struct criu_folders){.images_fd = -1, .work_fd = -1};
}

void criu_report_log(const struct criu_folders *folders, char ***warnings)
{
    _cleanup_free_ char *text = NULL;
    size_t length, shown = 0, printed = 0;

    if (file_read_at(AT_FDCWD, folders->log, LOG_FILE_MAX, &text, &length, NULL) < 0)
        return;
    _cleanup_strv_ char **lines = strv_split(text, '\n');
    for (size_t i = 0; lines && lines[i] && shown < LOG_LINES_MAX; i++) {
        if (!strstr(lines[i], "Error"))
            continue;
        if (!shown)
            strv_take(warnings, xasprintf("--- Quoting \"%s\"", folders->log));
        size_t first = i > LOG_LINES_BEFORE ? i - LOG_LINES_BEFORE : 0;
        for (size_t k = first < printed ? printed : first; k <= i; k++, shown++)
            strv_take(warnings, xasprintf("%zu:%s", k + 1, lines[k]));
        printed = i + 1;
    }
    if (shown)
        strv_append(warnings, "---");
}

/* --- options ---------------------------------------------------------------------------------- */

void criu_add_pair(struct buffer *out, enum criu_option option, const char *key, const char *value)
{
    _cleanup_buffer_ struct buffer pair = BUFFER_INIT;

    protobuf_add_text(&pair, PAIR_KEY, key);
    protobuf_add_text(&pair, PAIR_VALUE, value);
    protobuf_add_message(out, option, &pair);
}

static bool is_in_path(const char *name)
{
    const char *path = getenv("PATH");
    _cleanup_strv_ char **folders = strv_split(path ? path : "/usr/sbin:/usr/bin:/sbin:/bin", ':');

    for (size_t i = 0; folders && folders[i]; i++) {
        _cleanup_free_ char *full = xasprintf("%s/%s", folders[i], name);
        if (access(full, X_OK) == 0)
            return true;
    }
    return false;
}

static uint64_t cgroups_mode(const char *name)
{
    static const struct {
        const char *name;
        unsigned mode;
    } modes[] = {{"ignore", 0}, {"soft", 3}, {"full", 4}, {"strict", 5}};

    for (size_t i = 0; name && i < ARRAY_SIZE(modes); i++) {
        if (text_equal(name, modes[i].name))
            return modes[i].mode;
    }
    return CGROUPS_MODE_DEFAULT;
}

/* What the annotation says; an empty one: none. */
static const char *config_file(const struct oci_config *config)
{
    const char *file = json_string_map_get(config->annotations, ANNOTATION_CRIU_CONFIG);

    if (file)
        return file;
    return access(CRUN_CONFIG_FILE, F_OK) == 0 ? CRUN_CONFIG_FILE : RUNC_CONFIG_FILE;
}

void criu_add_common(struct buffer *out, const struct cloche_runtime_criu_options *options,
                     const struct oci_config *config, const struct criu_folders *folders,
                     const char *log_name)
{
    const char *file = config_file(config);
    const struct {
        enum criu_option option;
        bool value;
    } flags[] = {
        {CRIU_SHELL_JOB, options->shell_job},
        {CRIU_EXT_UNIX_SK, options->ext_unix_sk},
        {CRIU_TCP_ESTABLISHED, options->tcp_established},
        {CRIU_FILE_LOCKS, options->file_locks},
        {CRIU_AUTO_DEDUP, options->auto_dedup},
        {CRIU_LAZY_PAGES, options->lazy_pages},
        {CRIU_NOTIFY_SCRIPTS, true},
        {CRIU_MANAGE_CGROUPS, true},
        {CRIU_ORPHAN_PTS_MASTER, true},
    };

    protobuf_add_number(out, CRIU_IMAGES_DIR_FD, (uint64_t)folders->images_fd);
    if (folders->work_fd >= 0)
        protobuf_add_number(out, CRIU_WORK_DIR_FD, (uint64_t)folders->work_fd);
    for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
        protobuf_add_number(out, flags[i].option, flags[i].value);
    protobuf_add_number(out, CRIU_LOG_LEVEL, LOG_LEVEL);
    protobuf_add_text(out, CRIU_LOG_FILE, log_name);
    protobuf_add_number(out, CRIU_CGROUPS_MODE, cgroups_mode(options->manage_cgroups));
    /* What is in a network namespace is not the runtime's to save: engines make it again. */
    protobuf_add_number(out, CRIU_EMPTY_NAMESPACES, CLONE_NEWNET);
    if (!is_in_path("iptables-restore"))
        protobuf_add_number(out, CRIU_NETWORK_LOCK, NETWORK_LOCK_NFTABLES);
    /* Settings in it win over ours. */
    if (file[0])
        protobuf_add_text(out, CRIU_CONFIG_FILE, file);
}

const char *criu_namespace_path(const struct oci_config *config, const char *type)
{
    for (size_t i = 0; config->linux && i < config->linux->namespaces_count; i++) {
        const struct oci_namespace *entry = config->linux->namespaces[i];
        if (text_equal(entry->type, type) && !text_empty(entry->path))
            return entry->path;
    }
    return NULL;
}
