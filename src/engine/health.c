/*
 * What a container's health checks have left in its run folder: health.0 to health.4, each the
 * result of one check (src/monitor/health.c has the form).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/file.h>
#include <base/text.h>
#include <schema/utf8.h>

#include "supervision.h"

enum { RESULT_FILE_MAX = MONITOR_CHECK_OUTPUT_MAX + 1024 };

struct result {
    uint64_t number, started, finished, streak;
    int64_t exit_code;
    char *output; /* owned, UTF-8; NULL: there is no such result */
};

static void set_field(struct result *result, const char *name, const char *value)
{
    if (text_equal(name, "number"))
        text_to_u64(value, 0, UINT32_MAX, &result->number);
    else if (text_equal(name, "failing_streak"))
        text_to_u64(value, 0, INT32_MAX, &result->streak);
    else if (text_equal(name, "started"))
        text_to_u64(value, 0, INT64_MAX, &result->started);
    else if (text_equal(name, "finished"))
        text_to_u64(value, 0, INT64_MAX, &result->finished);
    else if (text_equal(name, "exit_code"))
        text_to_i64(value, INT32_MIN, INT32_MAX, &result->exit_code);
}

static void read_result(const char *path, struct result *ret)
{
    _cleanup_free_ char *text = NULL;
    struct buffer output = BUFFER_INIT;
    size_t length;

    if (file_read_at(AT_FDCWD, path, RESULT_FILE_MAX, &text, &length, NULL) < 0)
        return;
    char *body = strstr(text, "\n\n");
    if (!body)
        return;
    *body = '\0';
    body += 2;
    utf8_mend(body, length - (size_t)(body - text), &output);
    ret->output = buffer_steal(&output);
    for (char *rest = text, *line; (line = strsep(&rest, "\n"));) {
        char *equals = strchr(line, '=');
        if (!equals)
            continue;
        *equals = '\0';
        set_field(ret, line, equals + 1);
    }
}

static struct api_health_result *take(struct result *result)
{
    struct api_health_result *entry = xnew(struct api_health_result);

    entry->start = clock_format((int64_t)result->started);
    entry->end = clock_format((int64_t)result->finished);
    entry->exit_code = (int32_t)result->exit_code;
    entry->output = steal_ptr(result->output);
    return entry;
}

/* The oldest that has not been taken yet; NULL: none. */
static struct result *oldest(struct result *results)
{
    struct result *found = NULL;

    for (size_t i = 0; i < MONITOR_CHECKS_KEPT; i++) {
        if (results[i].output && (!found || results[i].number < found->number))
            found = &results[i];
    }
    return found;
}

struct api_health *supervision_health(const struct container *container)
{
    struct result results[MONITOR_CHECKS_KEPT] = {0};
    struct api_health *health;

    if (!container->record->health)
        return NULL;
    health = xnew(struct api_health);
    health->status = xstrdup(container->record->health);
    health->log = xnew_array(struct api_health_result *, MONITOR_CHECKS_KEPT + 1);
    for (size_t i = 0; container->link && i < MONITOR_CHECKS_KEPT; i++) {
        char name[16];
        snprintf(name, sizeof(name), "health.%zu", i);
        _cleanup_free_ char *path = container_run_path(container, name);
        read_result(path, &results[i]);
    }
    for (struct result *next; (next = oldest(results));) {
        health->failing_streak = (int32_t)next->streak;
        health->log[health->log_count++] = take(next);
    }
    return health;
}
