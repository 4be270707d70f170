#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/number.h>
#include <schema/scan.h>
#include <schema/utf8.h>

#include "library.h"

struct cloche_rpc_request {
    struct rpc_request *inner;
    struct cloche_rpc_server *server;
    const struct library_method *method;
    const char *params; /* the inner's */
    char **texts;       /* owned; what was handed out */
    char problem[160];
    void (*on_cancel)(struct cloche_rpc_request *request, void *data);
    void *cancel_data;
};

struct rpc_request *library_inner(const struct cloche_rpc_request *request)
{
    return request->inner;
}

struct cloche_rpc_topic *library_topic(const struct cloche_rpc_request *request)
{
    return request->method->topic;
}

static void release(struct cloche_rpc_request *request)
{
    struct cloche_rpc_server *server = request->server;

    strv_free(request->texts);
    free(request);
    library_server_unref(server);
}

/* ---- the parameters' text ---- */

/* One member after the other of an object or an array, which is known to be JSON. */
struct walk {
    struct json_scan scan;
    bool is_object;
    size_t place;
    struct json_token key; /* of an object */
    struct json_token value;
};

static void walk_begin(struct walk *walk, const char *params)
{
    *walk = (struct walk){.scan = {.at = params, .end = params + strlen(params)}};
    json_scan_blank(&walk->scan);
    walk->is_object = json_scan_peek(&walk->scan) == '{';
    walk->scan.at++;
}

static bool walk_next(struct walk *walk)
{
    struct json_scan *scan = &walk->scan;

    json_scan_blank(scan);
    if (json_scan_peek(scan) == ',') {
        scan->at++;
        walk->place++;
        json_scan_blank(scan);
    }
    if (walk->is_object) {
        if (json_scan_peek(scan) != '"' || !json_scan_string(scan, &walk->key))
            return false;
        json_scan_blank(scan);
        scan->at++; /* the colon */
        json_scan_blank(scan);
    } else if (json_scan_peek(scan) == ']') {
        return false;
    }
    return json_scan_skip(scan, JSON_DEPTH_MAX, &walk->value);
}

static bool is_key(const struct json_token *key, const char *name)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    struct json_problem problem;

    if (!key->escaped)
        return key->length == strlen(name) && memcmp(key->text, name, key->length) == 0;
    return json_unescape(key, &text, &problem) && text_equal(buffer_text(&text), name);
}

/* SIZE_MAX: by position there is no such parameter. */
static size_t place_of(const char *const *names, const char *name)
{
    for (size_t place = 0; names && names[place]; place++) {
        if (text_equal(names[place], name))
            return place;
    }
    return SIZE_MAX;
}

static bool is_known(const char *const *names, const struct json_token *key)
{
    for (; *names; names++) {
        if (is_key(key, *names))
            return true;
    }
    return false;
}

/* False: problem says what is there that the method does not know. */
static bool check_names(struct cloche_rpc_request *request)
{
    const char *const *names = request->method->method.params;
    size_t count = 0;
    struct walk walk;

    if (request->params[0] != '{' && request->params[0] != '[') {
        snprintf(request->problem, sizeof(request->problem), "parameters that JSON does not have");
        return false;
    }
    while (names && names[count])
        count++;
    walk_begin(&walk, request->params);
    while (names && walk_next(&walk)) {
        if (walk.is_object && !is_known(names, &walk.key)) {
            snprintf(request->problem, sizeof(request->problem), "unknown parameter \"%.*s\"",
                     walk.key.length < 64 ? (int)walk.key.length : 64, walk.key.text);
            return false;
        }
        if (!walk.is_object && walk.place >= count) {
            snprintf(request->problem, sizeof(request->problem), "more than %zu parameters", count);
            return false;
        }
    }
    return true;
}

static int find(struct cloche_rpc_request *request, const char *name, struct json_token *ret)
{
    size_t place = place_of(request->method->method.params, name);
    struct walk walk;

    walk_begin(&walk, request->params);
    while (walk_next(&walk)) {
        if (walk.is_object ? !is_key(&walk.key, name) : walk.place != place)
            continue;
        if (walk.value.length == 4 && memcmp(walk.value.text, "null", 4) == 0)
            break;
        *ret = walk.value;
        return 0;
    }
    snprintf(request->problem, sizeof(request->problem), "\"%s\" is missing", name);
    return -ENOENT;
}

static int wrong(struct cloche_rpc_request *request, const char *name, const char *expected)
{
    snprintf(request->problem, sizeof(request->problem), "\"%s\" is not %s", name, expected);
    return -EINVAL;
}

/* ---- parameters ---- */

int cloche_rpc_integer(struct cloche_rpc_request *request, const char *name, int64_t *ret)
{
    struct json_token token;

    int r = find(request, name, &token);
    if (r < 0)
        return r;
    _cleanup_free_ char *text = xstrndup(token.text, token.length);
    if (text_to_i64(text, INT64_MIN, INT64_MAX, ret) < 0)
        return wrong(request, name, "a whole number");
    return 0;
}

int cloche_rpc_number(struct cloche_rpc_request *request, const char *name, double *ret)
{
    struct json_token token;

    int r = find(request, name, &token);
    if (r < 0)
        return r;
    if (token.text[0] != '-' && (token.text[0] < '0' || token.text[0] > '9'))
        return wrong(request, name, "a number");
    _cleanup_free_ char *text = xstrndup(token.text, token.length);
    double value = json_to_double(text);
    if (!isfinite(value))
        return wrong(request, name, "a number that can be held");
    *ret = value;
    return 0;
}

int cloche_rpc_boolean(struct cloche_rpc_request *request, const char *name, bool *ret)
{
    struct json_token token;

    int r = find(request, name, &token);
    if (r < 0)
        return r;
    if (token.text[0] != 't' && token.text[0] != 'f')
        return wrong(request, name, "true or false");
    *ret = token.text[0] == 't';
    return 0;
}

static const char *hand_out(struct cloche_rpc_request *request, char *text)
{
    strv_take(&request->texts, text);
    return text;
}

int cloche_rpc_string(struct cloche_rpc_request *request, const char *name, const char **ret)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    struct json_problem problem;
    struct json_token token;

    int r = find(request, name, &token);
    if (r < 0)
        return r;
    struct json_scan scan = {.at = token.text, .end = token.text + token.length};
    if (token.text[0] != '"' || !json_scan_string(&scan, &token))
        return wrong(request, name, "a string");
    if (!token.escaped)
        buffer_append(&text, token.text, token.length);
    else if (!json_unescape(&token, &text, &problem))
        return wrong(request, name, "a string that can be read");
    *ret = hand_out(request, buffer_steal(&text));
    return 0;
}

int cloche_rpc_json(struct cloche_rpc_request *request, const char *name, const char **ret)
{
    struct json_token token;

    int r = find(request, name, &token);
    if (r == 0)
        *ret = hand_out(request, xstrndup(token.text, token.length));
    return r;
}

const char *cloche_rpc_params(struct cloche_rpc_request *request)
{
    return request->params;
}

int cloche_rpc_take_fd(struct cloche_rpc_request *request, size_t index)
{
    return rpc_request_take_fd(request->inner, index);
}

/* ---- answers ---- */

char *library_one_line(const char *text)
{
    size_t length = strlen(text);
    struct json_scan scan = {.at = text, .end = text + length};
    struct json_token token;

    json_scan_blank(&scan);
    if (utf8_check(text, length) != length || !json_scan_skip(&scan, JSON_DEPTH_MAX, &token))
        return NULL;
    json_scan_blank(&scan);
    if (scan.at != scan.end)
        return NULL;
    char *line = xstrndup(token.text, token.length);
    for (char *at = line; *at; at++) {
        if (*at == '\n' || *at == '\r') /* between values: strings have none */
            *at = ' ';
    }
    return line;
}

int cloche_rpc_reply_fds(struct cloche_rpc_request *request, const char *result, const int *fds,
                         size_t fds_count)
{
    _cleanup_free_ char *line = library_one_line(result ? result : "null");
    _cleanup_error_ struct error err = ERROR_INIT;
    struct rpc_request *inner = request->inner;

    if (line) {
        rpc_reply_json(inner, line, strlen(line), fds, fds_count);
        release(request);
        return 0;
    }
    for (size_t i = 0; i < fds_count; i++)
        close_fd(fds[i]);
    error_set(&err, -EINVAL, "the method answered what is not JSON");
    rpc_fail(inner, RPC_INTERNAL_ERROR, &err);
    release(request);
    return -EINVAL;
}

void cloche_schema_reply(struct cloche_rpc_request *request, const void *result, int fd)
{
    rpc_reply(request->inner, result, &fd, fd >= 0);
    release(request);
}

int cloche_rpc_reply(struct cloche_rpc_request *request, const char *result)
{
    return cloche_rpc_reply_fds(request, result, NULL, 0);
}

int cloche_rpc_reply_format(struct cloche_rpc_request *request, const char *format, ...)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    va_list args;

    va_start(args, format);
    buffer_vprintf(&text, format, args);
    va_end(args);
    return cloche_rpc_reply(request, buffer_text(&text));
}

void cloche_rpc_fail(struct cloche_rpc_request *request, int code, const char *message,
                     const char *hint)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct rpc_request *inner = request->inner;

    error_set(&err, -EIO, "%s", message ? message : "");
    if (hint)
        error_hint(&err, "%s", hint);
    rpc_fail(inner, code, &err);
    release(request);
}

void cloche_rpc_fail_params(struct cloche_rpc_request *request)
{
    char problem[sizeof(request->problem)];

    memcpy(problem, request->problem, sizeof(problem));
    cloche_rpc_fail(request, RPC_INVALID_PARAMS, problem, NULL);
}

char *cloche_rpc_quote(const char *text)
{
    _cleanup_buffer_ struct buffer out = BUFFER_INIT, mended = BUFFER_INIT;

    utf8_mend(text, strlen(text), &mended);
    json_quote(&out, buffer_text(&mended), mended.length);
    return buffer_steal(&out);
}

/* ---- what a handler may ask ---- */

static void on_cancel(struct rpc_request *inner, void *data)
{
    struct cloche_rpc_request *request = data;

    if (request->on_cancel)
        request->on_cancel(request, request->cancel_data);
}

void cloche_rpc_on_cancel(struct cloche_rpc_request *request,
                          void (*callback)(struct cloche_rpc_request *request, void *data),
                          void *data)
{
    request->on_cancel = callback;
    request->cancel_data = data;
    rpc_request_on_cancel(request->inner, callback ? on_cancel : NULL, request);
}

bool cloche_rpc_is_wanted(const struct cloche_rpc_request *request)
{
    return rpc_request_wanted(request->inner) == RPC_STILL_WANTED;
}

uint64_t cloche_rpc_deadline(const struct cloche_rpc_request *request)
{
    return rpc_request_deadline(request->inner);
}

void cloche_rpc_progress(struct cloche_rpc_request *request, uint64_t done, uint64_t total,
                         const char *unit, const char *text)
{
    rpc_request_progress(request->inner, done, total, unit, text);
}

struct cloche_rpc_connection *cloche_rpc_request_connection(struct cloche_rpc_request *request)
{
    return (struct cloche_rpc_connection *)rpc_request_connection(request->inner);
}

/* ---- dispatch ---- */

static struct cloche_rpc_request *request_of(struct rpc_request *inner,
                                             struct cloche_rpc_server *server, const char *params)
{
    struct cloche_rpc_request *request = xnew(struct cloche_rpc_request);

    request->inner = inner;
    request->server = server;
    request->method = (const struct library_method *)rpc_request_type(inner);
    request->params = params;
    server->references++;
    return request;
}

void library_handle(struct rpc_request *inner, const void *params, void *context)
{
    struct cloche_rpc_server *server = context;
    struct cloche_rpc_request *request = request_of(inner, server, params);

    if (check_names(request))
        request->method->method.handler(request, server->settings.context);
    else
        cloche_rpc_fail_params(request);
}

void library_handle_typed(struct rpc_request *inner, const void *params, void *context)
{
    struct cloche_rpc_server *server = context;
    struct cloche_rpc_request *request = request_of(inner, server, "{}");
    const struct library_method *method = request->method;

    method->typed->call(method->handlers, request, params, server->settings.context);
}
