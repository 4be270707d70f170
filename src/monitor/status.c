#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>
#include <monitor/status.h>

static const char *const state_names[] = {
    [MONITOR_STATE_CREATED] = "created",       [MONITOR_STATE_STARTING] = "starting",
    [MONITOR_STATE_RUNNING] = "running",       [MONITOR_STATE_EXITED] = "exited",
    [MONITOR_STATE_RESTARTING] = "restarting",
};

static const char *const health_names[] = {
    [MONITOR_HEALTH_NONE] = "none",
    [MONITOR_HEALTH_STARTING] = "starting",
    [MONITOR_HEALTH_HEALTHY] = "healthy",
    [MONITOR_HEALTH_UNHEALTHY] = "unhealthy",
};

const char *monitor_health_name(uint32_t status)
{
    return health_names[status < ARRAY_SIZE(health_names) ? status : 0];
}

void monitor_status_format(const struct monitor_status *status, uint64_t monitor_started,
                           const char *error, struct buffer *out)
{
    buffer_printf(out, "version=%d\nstate=%s\nmonitor=%d\npid=%d\nstarted=%llu\n",
                  MONITOR_STATUS_VERSION, state_names[status->state], status->monitor_pid,
                  status->pid, (unsigned long long)status->started);
    if (monitor_started)
        buffer_printf(out, "monitor_started=%llu\n", (unsigned long long)monitor_started);
    if (status->restarts)
        buffer_printf(out, "restarts=%u\n", status->restarts);
    if (status->health)
        buffer_printf(out, "health=%s\nfailing_streak=%u\n", monitor_health_name(status->health),
                      status->failing_streak);
    if (status->state == MONITOR_STATE_RESTARTING)
        buffer_printf(out, "next_start=%llu\n", (unsigned long long)status->next_start);
    if (status->state == MONITOR_STATE_EXITED || status->restarts)
        buffer_printf(out, "finished=%llu\nexit_code=%d\noom=%u\n",
                      (unsigned long long)status->finished, status->exit_code, status->oom);
    if (!error)
        return;
    buffer_append_text(out, "error=");
    for (; *error && out->length < MONITOR_STATUS_FILE_MAX - 1; error++)
        buffer_append_char(out, (unsigned char)*error < ' ' ? ' ' : *error);
    buffer_append_char(out, '\n');
}

static int parse_state(const char *value, uint32_t *ret)
{
    for (uint32_t state = 1; state < ARRAY_SIZE(state_names); state++) {
        if (text_equal(value, state_names[state])) {
            *ret = state;
            return 0;
        }
    }
    return -EBADMSG;
}

static int parse_health(const char *value, uint32_t *ret)
{
    for (uint32_t status = 0; status < ARRAY_SIZE(health_names); status++) {
        if (text_equal(value, health_names[status])) {
            *ret = status;
            return 0;
        }
    }
    return -EBADMSG;
}

static int parse_number(const char *value, uint64_t max, uint64_t *ret)
{
    return text_to_u64(value, 0, max, ret) < 0 ? -EBADMSG : 0;
}

static int parse_u32(const char *value, uint32_t *ret)
{
    uint64_t number;

    if (parse_number(value, UINT32_MAX, &number) < 0)
        return -EBADMSG;
    *ret = (uint32_t)number;
    return 0;
}

static int parse_i32(const char *value, int32_t *ret)
{
    uint64_t number;

    if (parse_number(value, INT32_MAX, &number) < 0)
        return -EBADMSG;
    *ret = (int32_t)number;
    return 0;
}

/* What a file says. */
struct content {
    struct monitor_status status;
    uint64_t monitor_started;
    char *error; /* owned */
};

/* Unknown names are passed over: a version that must not do so has another number. */
static int parse_field(const char *name, const char *value, struct content *content)
{
    struct monitor_status *status = &content->status;
    int32_t oom = 0;

    if (text_equal(name, "state"))
        return parse_state(value, &status->state);
    if (text_equal(name, "monitor"))
        return parse_i32(value, &status->monitor_pid);
    if (text_equal(name, "monitor_started"))
        return parse_number(value, UINT64_MAX, &content->monitor_started);
    if (text_equal(name, "pid"))
        return parse_i32(value, &status->pid);
    if (text_equal(name, "started"))
        return parse_number(value, UINT64_MAX, &status->started);
    if (text_equal(name, "finished"))
        return parse_number(value, UINT64_MAX, &status->finished);
    if (text_equal(name, "exit_code"))
        return parse_i32(value, &status->exit_code);
    if (text_equal(name, "oom")) {
        int r = parse_i32(value, &oom);
        status->oom = oom != 0;
        return r;
    }
    if (text_equal(name, "restarts"))
        return parse_u32(value, &status->restarts);
    if (text_equal(name, "failing_streak"))
        return parse_u32(value, &status->failing_streak);
    if (text_equal(name, "health"))
        return parse_health(value, &status->health);
    if (text_equal(name, "next_start"))
        return parse_number(value, UINT64_MAX, &status->next_start);
    if (text_equal(name, "error")) {
        free(content->error);
        content->error = xstrdup(value);
    }
    return 0;
}

static int check_version(const char *text, struct error *err)
{
    uint64_t version;

    if (!text_starts_with(text, "version="))
        return error_set(err, -EBADMSG, "status: not a status file");
    _cleanup_free_ char *value = xstrndup(text + 8, strcspn(text + 8, "\n"));
    if (text_to_u64(value, 1, UINT32_MAX, &version) < 0)
        return error_set(err, -EBADMSG, "status: malformed version");
    if (version > MONITOR_STATUS_VERSION)
        return error_set(err, -EPROTONOSUPPORT, "status: version %llu is newer than this program",
                         (unsigned long long)version);
    return 0;
}

static int parse(char *text, struct content *content, struct error *err)
{
    char *rest;
    int r = check_version(text, err);

    if (r < 0)
        return r;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char *equals = strchr(line, '=');
        if (equals)
            *equals = '\0';
        if (!equals || parse_field(line, equals + 1, content) < 0)
            return error_set(err, -EBADMSG, "status: malformed line '%s'", line);
    }
    return content->status.state ? 0 : error_set(err, -EBADMSG, "status: no state");
}

/* On failure there is no error to free in *ret. */
static int read_content(int dir_fd, struct content *ret, struct error *err)
{
    _cleanup_free_ char *text = NULL;
    int r = file_read_at(dir_fd, "status", MONITOR_STATUS_FILE_MAX * 2, &text, NULL, err);

    *ret = (struct content){0};
    if (r < 0)
        return r;
    r = parse(text, ret, err);
    if (r < 0)
        free(steal_ptr(ret->error));
    return r;
}

int monitor_status_read(int dir_fd, struct monitor_status *ret, char **ret_error, struct error *err)
{
    struct content content;
    int r = read_content(dir_fd, &content, err);

    if (r < 0)
        return r;
    *ret = content.status;
    if (ret_error)
        *ret_error = steal_ptr(content.error);
    free(content.error);
    return 0;
}

int monitor_status_read_monitor(int dir_fd, struct monitor_status *ret, uint64_t *ret_started,
                                struct error *err)
{
    struct content content;
    int r = read_content(dir_fd, &content, err);

    if (r < 0)
        return r;
    free(content.error);
    *ret = content.status;
    *ret_started = content.monitor_started;
    return 0;
}
