#include <string.h>
#include <strings.h>

#include <base/alloc.h>
#include <base/text.h>
#include <door/inspect.h>
#include <rpc/server.h>
#include <schema/docker.h>
#include <schema/management.h>

#include "../fields.h"
#include "filters.h"
#include "handlers.h"

/* ---- list */

static void on_list(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    struct listing *listing = connection_listing(exchange->connection);
    _cleanup_error_ struct error err = ERROR_INIT;
    _cleanup_buffer_ struct buffer out = BUFFER_INIT;

    if (listing_write(listing, exchange->state, outcome->text, outcome->text_length, &out, &err) <
        0)
        answer_error(exchange, 500, &err);
    else
        answer_json(exchange, 200, &out);
}

static void release_known(void *data)
{
    listing_release(data);
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
    static const struct call_options raw = {.raw = true};
    static const char *const known[] = {
        "ancestor", "before",  "since",  "expose", "publish", "health",    "id",      "name",
        "label",    "network", "status", "volume", "exited",  "isolation", "is-task", NULL};
    _cleanup_filters_ struct filters filters = {.count = 0};
    struct api_container_filters wanted;
    struct api_container_list which = {.all = target_flag(&exchange->target, "all"),
                                       .has_all = true,
                                       .size = target_flag(&exchange->target, "size"),
                                       .has_size = true,
                                       .details = true,
                                       .has_details = true,
                                       .filters = &wanted};
    const char *last = target_text(&exchange->target, "limit");
    int64_t limit = 0;

    if (!text_empty(last) && text_to_i64(last, INT64_MIN, INT64_MAX, &limit) < 0) {
        answer_fail(exchange, 400, "invalid limit '%.64s': not a number", last);
        return;
    }
    which.has_limit = limit > 0;
    which.limit = which.has_limit ? (int32_t)(limit > INT32_MAX ? INT32_MAX : limit) : 0;
    if (!filters_of(exchange, known, &filters))
        return;
    char **task = filters_get(&filters, "is-task");
    if (task && (text_equal(task[0], "true") || text_equal(task[0], "1"))) {
        answer_text(exchange, 200, "application/json", "[]\n");
        return;
    }
    if (wanted_of(exchange, &filters, &wanted)) {
        struct listing_whole *whole = listing_hold(connection_listing(exchange->connection));
        exchange_set_state(exchange, whole, release_known);
        which.known = which.size ? NULL : listing_edition(whole);
        call(exchange, "container.list", &which, on_list, &raw);
        free(wanted.exited);
    }
}

/* ---- inspect */

static void free_document(void *data)
{
    struct buffer *document = data;

    buffer_finish(document);
    free(document);
}

/* SizeRw and SizeRootFs are of the list; they become the document's last members. */
static void on_sized(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    const struct api_container_summaries *list = outcome->result;
    struct buffer *out = exchange->state;

    if (list->containers_count == 1 && out->length) {
        const struct api_container_summary *container = list->containers[0];
        out->length--; /* the brace */
        buffer_printf(out, ",\"SizeRw\":%jd,\"SizeRootFs\":%jd}", (intmax_t)container->size_rw,
                      (intmax_t)container->size_root_fs);
    }
    answer_json(exchange, 200, out);
}

static void on_inspect(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    const struct api_container_details *details = outcome->result;
    struct buffer *out = xnew(struct buffer);

    exchange_set_state(exchange, out, free_document);
    door_inspect_container(details, out);
    if (target_flag(&exchange->target, "size")) {
        const struct api_container_list which = {.ids = (char *[]){details->id, NULL},
                                                 .ids_count = 1,
                                                 .all = true,
                                                 .has_all = true,
                                                 .size = true,
                                                 .has_size = true};
        call(exchange, "container.list", &which, on_sized, NULL);
        return;
    }
    answer_json(exchange, 200, out);
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

    if (!text_empty(target_text(&exchange->target, "checkpoint"))) {
        answer_fail(exchange, 400, "checkpoints of containers are not supported");
        return;
    }
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

enum { KILL_SECONDS = 10 };

/* dockerd answers SIGKILL when the container has ended, and clients look at once. */
static bool is_kill(const char *signal)
{
    static const char *const names[] = {"9", "KILL", "SIGKILL"};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if (signal && strcasecmp(signal, names[i]) == 0)
            return true;
    return text_empty(signal);
}

/* One that cannot die, of a disk that does not answer. */
static void on_kill_is_late(struct rpc_timer *timer)
{
    struct exchange *exchange =
        (struct exchange *)((char *)timer - offsetof(struct exchange, timer));

    calls_cancel(exchange);
    answer_fail(exchange, 500, "tried to kill container, but did not receive an exit event");
}

static void wait_for_end(struct exchange *exchange, const struct rpc_outcome *outcome _unused_)
{
    static const struct call_options errors = {.errors = true};
    struct rpc_loop *loop = connection_loop(exchange->connection);
    const struct api_container_wait how = {.container = exchange->words[0],
                                           .condition = (char *)"not-running"};

    call(exchange, "container.wait", &how, call_done_empty, &errors);
    exchange->timer.callback = on_kill_is_late;
    rpc_loop_set_timer(loop, &exchange->timer, rpc_loop_now(loop) + KILL_SECONDS * 1000000000ULL);
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
        answer_fail(exchange, 409, "Conflict, cannot remove the default name of the container");
        return;
    }
    call(exchange, "container.remove", &how, call_done_empty, NULL);
}

/* docker's name of a link is CONTAINER/ALIAS. */
void docker_link_remove(struct exchange *exchange)
{
    const struct api_container_update how = {.container = exchange->words[0],
                                             .remove_link = exchange->words[1]};

    if (target_flag(&exchange->target, "link"))
        call(exchange, "container.update", &how, call_done_empty, NULL);
    else
        answer_fail(exchange, 404, "No such container: %.128s/%.128s", exchange->words[0],
                    exchange->words[1]);
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
    answer_begin(exchange, 200, "application/json");
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
