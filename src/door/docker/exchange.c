#include "exchange.h"
#include "filters.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include <base/alloc.h>
#include <base/text.h>

bool exchange_since(const struct exchange *exchange, unsigned minor)
{
    return exchange->target.major > 1 || exchange->target.minor >= minor;
}

void exchange_set_state(struct exchange *exchange, void *state, void (*release)(void *state))
{
    exchange->state = state;
    exchange->release = release;
}

/* A page of the web can have a browser send a body of any text without asking first, but none of
 * this type. */
static bool is_json(const char *type)
{
    static const char json[] = "application/json";
    size_t length = type ? strcspn(type, "; \t") : 0;

    return length == strlen(json) && strncasecmp(type, json, length) == 0;
}

/* Nothing, or null as the command line sends it of what it has none of. */
static bool is_nothing(const char *text)
{
    text += strspn(text, " \t\r\n");
    if (strncmp(text, "null", 4) == 0)
        text += 4;
    return !text[strspn(text, " \t\r\n")];
}

bool exchange_document(struct exchange *exchange, const struct json_type *type, void **ret)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    const char *text = buffer_text(&exchange->body);
    size_t length = exchange->body.length;
    bool empty = strlen(text) == length && is_nothing(text);

    const char *content = head_field(&exchange->head, "Content-Type");
    if (length && !is_json(content)) {
        answer_fail(exchange, 400, "Content-Type specified (%s) must be 'application/json'",
                    content ? content : "");
        return false;
    }
    if (json_parse(type, empty ? "{}" : text, empty ? 2 : length, NULL, ret, &err) == 0)
        return true;
    answer_fail(exchange, 400, "invalid JSON: %s", error_message(&err));
    return false;
}

static bool is_known(const char *const *known, const char *key)
{
    while (*known && !text_equal(*known, key))
        known++;
    return *known != NULL;
}

bool filters_of(struct exchange *exchange, const char *const *known, struct filters *ret)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    if (filters_parse(target_text(&exchange->target, "filters"), ret, &err) < 0) {
        answer_error(exchange, 400, &err);
        return false;
    }
    for (size_t i = 0; i < ret->count; i++) {
        if (is_known(known, ret->items[i].key))
            continue;
        answer_fail(exchange, 400, "invalid filter '%s'", ret->items[i].key);
        filters_finish(ret);
        return false;
    }
    return true;
}

bool filters_flag(struct exchange *exchange, const struct filters *filters, const char *key,
                  bool *ret, bool *ret_has)
{
    char **values = filters_get(filters, key);

    *ret_has = values != NULL;
    *ret = values && (text_equal(values[0], "true") || text_equal(values[0], "1"));
    if (!values || *ret || text_equal(values[0], "false") || text_equal(values[0], "0"))
        return true;
    answer_fail(exchange, 400, "invalid filter '%s=[%s]'", key, values[0]);
    return false;
}

/* ---- heads ---- */

static const char *reason_of(unsigned status)
{
    static const struct {
        unsigned status;
        const char *reason;
    } reasons[] = {
        {200, "OK"},
        {201, "Created"},
        {204, "No Content"},
        {304, "Not Modified"},
        {400, "Bad Request"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {409, "Conflict"},
        {413, "Content Too Large"},
        {417, "Expectation Failed"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {503, "Service Unavailable"},
        {505, "HTTP Version Not Supported"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(reasons); i++)
        if (reasons[i].status == status)
            return reasons[i].reason;
    return "Status";
}

static void write_date(struct buffer *out)
{
    static time_t last;
    static char text[40];
    time_t now = time(NULL);
    struct tm tm;

    if (now != last && gmtime_r(&now, &tm) &&
        strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S GMT", &tm))
        last = now;
    buffer_printf(out, "Date: %s\r\n", text);
}

static void write_head(struct exchange *exchange, unsigned status, const char *type)
{
    struct buffer *out = &exchange->connection->out;

    buffer_printf(out, "HTTP/1.1 %u %s\r\n", status, reason_of(status));
    buffer_printf(out, "Api-Version: 1.%d\r\n", DOCKER_API_MAX);
    if (type)
        buffer_printf(out, "Content-Type: %s\r\n", type);
    buffer_append_text(out, "Docker-Experimental: true\r\nOstype: linux\r\n"
                            "Server: Cloche/" CLOCHE_VERSION " (linux)\r\n");
    write_date(out);
    buffer_append(out, exchange->connection->headers.data, exchange->connection->headers.length);
    if (!exchange->connection->keep)
        buffer_append_text(out, "Connection: close\r\n");
    exchange->begun = true;
}

void answer_header(struct exchange *exchange, const char *name, const char *value)
{
    buffer_printf(&exchange->connection->headers, "%s: %s\r\n", name, value);
}

static void end(struct exchange *exchange)
{
    exchange->ended = true;
    connection_touch(exchange->connection);
}

/* ---- whole answers ---- */

static void answer_whole(struct exchange *exchange, unsigned status, const char *type,
                         const char *data, size_t length)
{
    struct buffer *out = &exchange->connection->out;

    if (exchange->ended)
        return;
    write_head(exchange, status, type);
    if (status != 204 && status != 304)
        buffer_printf(out, "Content-Length: %zu\r\n", length);
    buffer_append_text(out, "\r\n");
    if (!text_equal(exchange->head.method, "HEAD"))
        buffer_append(out, data, length);
    end(exchange);
}

void answer_empty(struct exchange *exchange, unsigned status)
{
    answer_whole(exchange, status, NULL, NULL, 0);
}

void answer_json(struct exchange *exchange, unsigned status, struct buffer *json)
{
    buffer_append_char(json, '\n');
    answer_whole(exchange, status, "application/json", json->data, json->length);
    buffer_finish(json);
}

void answer_text(struct exchange *exchange, unsigned status, const char *type, const char *text)
{
    answer_whole(exchange, status, type, text, strlen(text));
}

/* ---- errors ---- */

/* As the stream's last line, with the number that a client takes for an exit code or a status. */
static void write_last_line(struct exchange *exchange, unsigned status, const char *message)
{
    _cleanup_buffer_ struct buffer line = BUFFER_INIT;
    struct json_writer writer;

    json_writer_init(&writer, &line, JSON_COMPACT);
    json_writer_object_begin(&writer);
    json_writer_key(&writer, "errorDetail");
    json_writer_object_begin(&writer);
    if (status == 404 || status == 403) {
        json_writer_key(&writer, "code");
        json_writer_unsigned(&writer, status);
    }
    json_writer_key(&writer, "message");
    json_writer_string(&writer, message);
    json_writer_object_end(&writer);
    json_writer_key(&writer, "error");
    json_writer_string(&writer, message);
    json_writer_object_end(&writer);
    answer_line(exchange, &line);
    answer_end(exchange);
}

static void fail(struct exchange *exchange, unsigned status, const char *message)
{
    _cleanup_buffer_ struct buffer json = BUFFER_INIT;
    struct json_writer writer;

    if (exchange->ended)
        return;
    if (exchange->begun) {
        write_last_line(exchange, status, message);
        return;
    }
    buffer_clear(&exchange->connection->headers);
    json_writer_init(&writer, &json, JSON_COMPACT);
    json_writer_object_begin(&writer);
    json_writer_key(&writer, "message");
    json_writer_string(&writer, message);
    json_writer_object_end(&writer);
    answer_json(exchange, status, &json);
}

void answer_fail(struct exchange *exchange, unsigned status, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    _cleanup_free_ char *message = xvasprintf(format, args);
    va_end(args);
    fail(exchange, status, message);
}

void answer_error(struct exchange *exchange, unsigned status, const struct error *err)
{
    fail(exchange, status, error_message(err));
}

/* ---- answers in pieces ---- */

void answer_begin(struct exchange *exchange, unsigned status, const char *type)
{
    struct connection *connection = exchange->connection;

    if (exchange->begun || exchange->ended)
        return;
    exchange->chunked = !exchange->head.old;
    connection->keep = connection->keep && exchange->chunked;
    write_head(exchange, status, type);
    buffer_append_text(&connection->out,
                       exchange->chunked ? "Transfer-Encoding: chunked\r\n\r\n" : "\r\n");
    connection_touch(connection);
}

void answer_data(struct exchange *exchange, const void *data, size_t length)
{
    struct buffer *out = &exchange->connection->out;

    if (!length || exchange->ended)
        return;
    answer_begin(exchange, 200, "application/octet-stream");
    if (exchange->websocket) {
        frames_write(&exchange->websocket->frames, data, length, out);
        connection_touch(exchange->connection);
        return;
    }
    if (exchange->chunked)
        buffer_printf(out, "%zx\r\n", length);
    buffer_append(out, data, length);
    if (exchange->chunked)
        buffer_append_text(out, "\r\n");
    connection_touch(exchange->connection);
}

void answer_line(struct exchange *exchange, const struct buffer *json)
{
    _cleanup_buffer_ struct buffer line = BUFFER_INIT;

    answer_begin(exchange, 200, "application/json");
    buffer_append(&line, json->data, json->length);
    buffer_append_text(&line, "\r\n");
    answer_data(exchange, line.data, line.length);
}

void answer_end(struct exchange *exchange)
{
    if (exchange->ended)
        return;
    answer_begin(exchange, 200, "application/octet-stream");
    if (exchange->chunked)
        buffer_append_text(&exchange->connection->out, "0\r\n\r\n");
    if (exchange->websocket)
        frames_close(&exchange->websocket->frames, FRAMES_NORMAL, &exchange->connection->out);
    end(exchange);
}

void answer_break(struct exchange *exchange)
{
    if (exchange->ended)
        return;
    if (!exchange->begun) {
        answer_fail(exchange, 500, "the daemon has ended the connection");
        return;
    }
    exchange->connection->keep = false;
    end(exchange);
}
