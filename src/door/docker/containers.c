#include <string.h>
#include <strings.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/text.h>
#include <door/inspect.h>
#include <rpc/server.h>
#include <schema/docker.h>
#include <schema/management.h>

#include "../fields.h"
#include "filters.h"
#include "handlers.h"

/* ---- list */

static int64_t seconds_of(const char *time)
{
    int64_t nanoseconds;

    return time && clock_parse(time, &nanoseconds) == 0 ? nanoseconds / CLOCK_SECOND : 0;
}

static void write_port(struct json_writer *writer, const struct api_port *port)
{
    json_writer_object_begin(writer);
    if (port->has_host_port && port->host_port)
        field_text(writer, "IP", text_empty(port->host_address) ? "0.0.0.0" : port->host_address);
    field_unsigned(writer, "PrivatePort", port->container_port);
    if (port->has_host_port && port->host_port)
        field_unsigned(writer, "PublicPort", port->host_port);
    field_text(writer, "Type", text_empty(port->protocol) ? "tcp" : port->protocol);
    json_writer_object_end(writer);
}

static void write_names(struct json_writer *writer, char *const *names)
{
    json_writer_key(writer, "Names");
    json_writer_array_begin(writer);
    for (; names && *names; names++) {
        _cleanup_free_ char *name = xasprintf("/%s", *names);
        json_writer_string(writer, name);
    }
    json_writer_array_end(writer);
}

static void write_summary(struct json_writer *writer, const struct api_container_summary *container)
{
    json_writer_object_begin(writer);
    field_text(writer, "Id", container->id);
    write_names(writer, container->names);
    field_text(writer, "Image", container->image);
    field_text(writer, "ImageID", container->image_id);
    field_text(writer, "Command", container->command);
    field_integer(writer, "Created", seconds_of(container->created_at));
    json_writer_key(writer, "Ports");
    json_writer_array_begin(writer);
    for (size_t i = 0; i < container->ports_count; i++)
        write_port(writer, container->ports[i]);
    json_writer_array_end(writer);
    field_map(writer, "Labels", container->labels);
    field_text(writer, "State", container->state);
    field_text(writer, "Status", container->status);
    if (container->has_size_rw)
        field_integer(writer, "SizeRw", container->size_rw);
    if (container->has_size_root_fs)
        field_integer(writer, "SizeRootFs", container->size_root_fs);
    json_writer_object_end(writer);
}

static void on_list(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    const struct api_container_summaries *list = outcome->result;
    struct buffer out = BUFFER_INIT;
    struct json_writer writer;

    json_writer_init(&writer, &out, JSON_COMPACT);
    json_writer_array_begin(&writer);
    for (size_t i = 0; i < list->containers_count; i++)
        write_summary(&writer, list->containers[i]);
    json_writer_array_end(&writer);
    answer_json(exchange, 200, &out);
}

struct list_filter {
    const char *key;
    size_t list, count; /* offsets in struct api_container_filters */
};

#define LIST_FILTER(name)                                                                          \
    {                                                                                              \
#name, offsetof(struct api_container_filters, name),                                       \
            offsetof(struct api_container_filters, name##_count)                                   \
    }

static const struct list_filter list_filters[] = {
    LIST_FILTER(ancestor), LIST_FILTER(before),  LIST_FILTER(since),  LIST_FILTER(expose),
    LIST_FILTER(publish),  LIST_FILTER(health),  LIST_FILTER(id),     LIST_FILTER(name),
    LIST_FILTER(label),    LIST_FILTER(network), LIST_FILTER(status), LIST_FILTER(volume),
};

static bool add_exit_codes(struct exchange *exchange, char *const *texts,
                           struct api_container_filters *ret)
{
    int64_t code;

    for (size_t i = 0; texts && texts[i]; i++) {
        if (text_to_i64(texts[i], INT32_MIN, INT32_MAX, &code) < 0) {
            answer_fail(exchange, 400, "invalid filter 'exited=%s'", texts[i]);
            return false;
        }
        ret->exited = xrealloc(ret->exited, i + 1, sizeof(*ret->exited));
        ret->exited[i] = (int32_t)code;
        ret->exited_count = i + 1;
    }
    return true;
}

/* But for the exit codes they stay the filters'. */
static bool wanted_of(struct exchange *exchange, const struct filters *filters,
                      struct api_container_filters *ret)
{
    *ret = (struct api_container_filters){0};
    for (size_t i = 0; i < ARRAY_SIZE(list_filters); i++) {
        char **values = filters_get(filters, list_filters[i].key);
        *(char ***)((char *)ret + list_filters[i].list) = values;
        *(size_t *)((char *)ret + list_filters[i].count) = strv_length(values);
    }
    return add_exit_codes(exchange, filters_get(filters, "exited"), ret);
}

void docker_container_list(struct exchange *exchange)
{
    static const char *const known[] = {
        "ancestor", "before",  "since",  "expose", "publish", "health",    "id",      "name",
        "label",    "network", "status", "volume", "exited",  "isolation", "is-task", NULL};
    _cleanup_filters_ struct filters filters = {.count = 0};
    struct api_container_filters wanted;
    struct api_container_list which = {.all = target_flag(&exchange->target, "all"),
                                       .has_all = true,
                                       .size = target_flag(&exchange->target, "size"),
                                       .has_size = true,
                                       .filters = &wanted};
    int64_t limit = target_number(&exchange->target, "limit", 0);

    which.has_limit = limit > 0;
    which.limit = which.has_limit ? (int32_t)(limit > INT32_MAX ? INT32_MAX : limit) : 0;
    if (filters_of(exchange, known, &filters) && wanted_of(exchange, &filters, &wanted)) {
        call(exchange, "container.list", &which, on_list, NULL);
        free(wanted.exited);
    }
}

/* ---- inspect */

static void on_inspect(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    struct buffer out = BUFFER_INIT;

    door_inspect_container(outcome->result, &out);
    answer_json(exchange, 200, &out);
}

void docker_container_inspect(struct exchange *exchange)
{
    const struct api_container_ref which = {.container = exchange->words[0]};

    call(exchange, "container.inspect", &which, on_inspect, NULL);
}

/* ---- start, stop, restart, kill */

static void done_changed(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    const struct api_changed *changed = outcome->result;

    answer_empty(exchange, changed->changed ? 204 : 304);
}

void docker_container_start(struct exchange *exchange)
{
    const struct api_container_ref which = {.container = exchange->words[0]};

    call(exchange, "container.start", &which, done_changed, NULL);
}

/* The time-out `t`, as long as a number of seconds can be. */
static bool timeout_of(const struct exchange *exchange, int32_t *ret)
{
    int64_t seconds = target_number(&exchange->target, "t", INT64_MIN);

    if (seconds == INT64_MIN)
        return false;
    *ret = seconds > INT32_MAX ? INT32_MAX : seconds < 0 ? -1 : (int32_t)seconds;
    return true;
}

void docker_container_stop(struct exchange *exchange)
{
    struct api_container_stop how = {
        .container = exchange->words[0],
        .signal = (char *)(uintptr_t)target_text(&exchange->target, "signal")};

    how.has_timeout = timeout_of(exchange, &how.timeout);
    call(exchange, "container.stop", &how, done_changed, NULL);
}

/* dockerd answers SIGKILL when the container has ended, and clients look at once. */
static bool is_kill(const char *signal)
{
    static const char *const names[] = {"9", "KILL", "SIGKILL"};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if (signal && strcasecmp(signal, names[i]) == 0)
            return true;
    return text_empty(signal);
}

static void wait_for_end(struct exchange *exchange, const struct rpc_outcome *outcome _unused_)
{
    static const struct call_options errors = {.errors = true};
    const struct api_container_wait how = {.container = exchange->words[0],
                                           .condition = (char *)"not-running"};

    call(exchange, "container.wait", &how, call_done_empty, &errors);
}

void docker_container_kill(struct exchange *exchange)
{
    const char *signal = target_text(&exchange->target, "signal");
    const struct api_container_kill how = {
        .container = exchange->words[0],
        .signal = text_empty(signal) ? NULL : (char *)(uintptr_t)signal};

    call(exchange, "container.kill", &how, is_kill(signal) ? wait_for_end : call_done_empty, NULL);
}

void docker_container_remove(struct exchange *exchange)
{
    const struct api_container_remove how = {
        .container = exchange->words[0],
        .force = target_flag(&exchange->target, "force"),
        .has_force = true,
        .volumes = target_flag(&exchange->target, "v"),
        .has_volumes = true,
    };

    if (target_flag(&exchange->target, "link")) {
        answer_fail(exchange, 501, "links of containers are not kept as names");
        return;
    }
    call(exchange, "container.remove", &how, call_done_empty, NULL);
}

void docker_container_resize(struct exchange *exchange)
{
    int64_t rows = target_number(&exchange->target, "h", -1);
    int64_t columns = target_number(&exchange->target, "w", -1);

    if (rows < 0 || columns < 0 || rows > UINT16_MAX || columns > UINT16_MAX) {
        answer_fail(exchange, 400, "invalid size of a terminal: h and w are numbers to 65535");
        return;
    }
    const struct api_container_resize size = {
        .container = exchange->words[0], .rows = (uint16_t)rows, .columns = (uint16_t)columns};
    call(exchange, "container.resize", &size, call_done_nothing, NULL);
}

/* ---- wait */

static void write_waited(struct exchange *exchange, int64_t code, const char *error)
{
    _cleanup_buffer_ struct buffer out = BUFFER_INIT;
    struct json_writer writer;

    json_writer_init(&writer, &out, JSON_COMPACT);
    json_writer_object_begin(&writer);
    field_integer(&writer, "StatusCode", code);
    if (!text_empty(error)) {
        field_object_begin(&writer, "Error");
        field_text(&writer, "Message", error);
        json_writer_object_end(&writer);
    } else if (!exchange_since(exchange, 42)) {
        field_null(&writer, "Error");
    }
    json_writer_object_end(&writer);
    buffer_append_char(&out, '\n');
    answer_data(exchange, out.data, out.length);
    answer_end(exchange);
}

static void on_waited(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    const struct api_container_waited *waited = outcome->result;

    if (outcome->code == 0)
        write_waited(exchange, waited->exit_code, NULL);
    else if (exchange->begun)
        write_waited(exchange, -1, error_message(outcome->error));
    else
        call_answer_error(exchange, outcome);
}

/* That there is such a container is known once it has been looked for; the head goes out then, as
 * the CLI starts the container when it has that. The wait is sent before: both go in order. */
static void on_wait_begun(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    if (outcome->code == 0)
        answer_begin(exchange, 200, "application/json");
}

void docker_container_wait(struct exchange *exchange)
{
    static const struct call_options errors = {.errors = true};
    const char *condition = target_text(&exchange->target, "condition");
    const struct api_container_wait how = {
        .container = exchange->words[0],
        .condition = text_empty(condition) ? NULL : (char *)(uintptr_t)condition};
    const struct api_container_ref which = {.container = exchange->words[0]};

    if (how.condition && !text_equal(condition, "not-running") &&
        !text_equal(condition, "next-exit") && !text_equal(condition, "removed")) {
        answer_fail(exchange, 400, "invalid condition: \"%s\"", condition);
        return;
    }
    call(exchange, "container.wait", &how, on_waited, &errors);
    if (!exchange->ended)
        call(exchange, "container.inspect", &which, on_wait_begun, &errors);
}

/* ---- commit */

static void on_committed(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    const struct api_image_id *image = outcome->result;
    struct buffer out = BUFFER_INIT;
    struct json_writer writer;

    json_writer_init(&writer, &out, JSON_COMPACT);
    json_writer_object_begin(&writer);
    field_text(&writer, "Id", image->id);
    json_writer_object_end(&writer);
    answer_json(exchange, 201, &out);
}

/* Instructions, a line each. */
static char **changes_of(const struct exchange *exchange)
{
    _cleanup_strv_ char **texts = target_list(&exchange->target, "changes");
    char **changes = NULL;

    for (size_t i = 0; texts && texts[i]; i++) {
        _cleanup_strv_ char **lines = strv_split(texts[i], '\n');
        for (size_t j = 0; lines && lines[j]; j++)
            if (lines[j][0])
                strv_append(&changes, lines[j]);
    }
    return changes;
}

void docker_commit(struct exchange *exchange)
{
    const struct target *target = &exchange->target;
    const char *container = target_text(target, "container"), *pause = target_text(target, "pause");
    const char *repository = target_text(target, "repo"), *tag = target_text(target, "tag");
    _cleanup_strv_ char **changes = changes_of(exchange);
    _cleanup_free_ char *name = text_empty(repository)
                                    ? NULL
                                    : xasprintf("%s%s%s", repository, text_empty(tag) ? "" : ":",
                                                text_empty(tag) ? "" : tag);

    if (text_empty(container)) {
        answer_fail(exchange, 400, "no container is named");
        return;
    }
    const struct api_container_commit how = {
        .container = (char *)(uintptr_t)container,
        .name = name,
        .message = (char *)(uintptr_t)target_text(target, "comment"),
        .author = (char *)(uintptr_t)target_text(target, "author"),
        .pause = !pause || target_flag(target, "pause"),
        .has_pause = true,
        .changes = changes,
        .changes_count = strv_length(changes),
    };
    call(exchange, "container.commit", &how, on_committed, NULL);
}
