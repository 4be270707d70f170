#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/registry_answers.h>

#include "authorize.h"
#include "session.h"
#include "trust.h"
#include "url.h"

enum {
    PATIENCE_SECONDS = 60,
    ATTEMPTS = 5,
    PAUSE_MILLISECONDS = 500,
    PAUSE_MAX_MILLISECONDS = 30000,
    PAUSE_STEP_MILLISECONDS = 100,
};

int session_open(struct session *session, const struct image_worker_registry *registry,
                 struct error *err)
{
    *session = (struct session){.registry = registry};
    pthread_mutex_init(&session->mutex, NULL);
    pthread_mutex_init(&session->asking, NULL);
    if (registry->endpoints_count == 0 || registry->endpoints_count > ENDPOINTS_MAX)
        return error_set(err, -EINVAL, "a registry has 1 to %d endpoints (ENDPOINTS_MAX)",
                         ENDPOINTS_MAX);
    for (size_t i = 0; i < registry->endpoints_count; i++) {
        struct endpoint *endpoint = &session->endpoints[session->endpoints_count++];
        endpoint->given = registry->endpoints[i];
        int r = trust_read(endpoint->given, &endpoint->trust, err);
        if (r < 0)
            return r;
        endpoint->settings = (struct http_settings){
            .home = endpoint->given->url,
            .trust = &endpoint->trust,
            .proxy = registry->proxy,
            .patience =
                registry->has_patience_seconds ? registry->patience_seconds : PATIENCE_SECONDS,
            .stop = &session->stop,
        };
    }
    return 0;
}

void session_close(struct session *session)
{
    for (size_t i = 0; i < session->endpoints_count; i++)
        trust_finish(&session->endpoints[i].trust);
    free(session->scope);
    free(session->authorization);
    pthread_mutex_destroy(&session->mutex);
    pthread_mutex_destroy(&session->asking);
}

void session_use(struct session *session, const struct endpoint *endpoint, const char *scope)
{
    char *copy = xstrdup(scope);

    session->endpoint = endpoint;
    session->stop = false; /* of the layers of the endpoint before, whose threads have ended */
    free(session->scope);
    free(session->authorization);
    session->scope = copy;
    session->authorization = NULL;
}

/* A mirror may lack what the registry has, and may be broken in any way. Another endpoint of the
 * registry itself is for when there is nobody at this one, or nobody who speaks TLS. */
bool session_may_go_on(const struct session *session, int code)
{
    if (session->endpoint == &session->endpoints[session->endpoints_count - 1] ||
        code == -ECANCELED)
        return false;
    if (session->endpoint->given->mirror)
        return true;
    return code == -ECONNREFUSED || code == -EPROTONOSUPPORT || code == -EHOSTUNREACH;
}

char *session_url(const struct session *session, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    _cleanup_free_ char *path = xvasprintf(format, args);
    va_end(args);
    return xasprintf("%s/v2/%s", session->endpoint->given->url, path);
}

char *session_next_page(const struct session *session, const char *link, const char *path)
{
    const char *start = link ? strchr(link, '<') : NULL;
    const char *end = start ? strchr(start, '>') : NULL;

    if (!end || !strstr(end, "next"))
        return NULL;
    _cleanup_free_ char *given = xstrndup(start + 1, (size_t)(end - start - 1));
    _cleanup_free_ char *first = session_url(session, "%s", path);
    char *next = url_resolve(first, given);
    if (next && text_starts_with(next, first) && strchr("?", next[strlen(first)]))
        return next;
    free(next);
    return NULL;
}

unsigned session_attempts(const struct session *session)
{
    return session->registry->has_attempts ? session->registry->attempts : ATTEMPTS;
}

bool session_is_passing(int code)
{
    return code == -ECONNRESET || code == -ETIMEDOUT || code == -EAGAIN;
}

int session_pause(const struct session *session, unsigned attempt, uint64_t retry_after,
                  struct error *err)
{
    uint64_t left = session->registry->has_pause_milliseconds
                        ? session->registry->pause_milliseconds
                        : PAUSE_MILLISECONDS;

    for (unsigned i = 1; i < attempt && left < PAUSE_MAX_MILLISECONDS; i++)
        left *= 2;
    if (retry_after)
        left = retry_after < PAUSE_MAX_MILLISECONDS / 1000 ? retry_after * 1000
                                                           : PAUSE_MAX_MILLISECONDS;
    if (left > PAUSE_MAX_MILLISECONDS)
        left = PAUSE_MAX_MILLISECONDS;
    while (left) {
        uint64_t step = left < PAUSE_STEP_MILLISECONDS ? left : PAUSE_STEP_MILLISECONDS;
        const struct timespec pause = {0, (long)step * 1000000};
        if (session->stop)
            return error_set(err, -ECANCELED, "given up");
        clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
        left -= step;
    }
    return 0;
}

/* ---- answers ---- */

static int code_of(int status)
{
    if (status == 401 || status == 403)
        return -EACCES;
    if (status == 404)
        return -ENOENT;
    if (status == 501 || status == 505) /* it never will */
        return -EPROTO;
    return status == 408 || status == 429 || status >= 500 ? -EAGAIN : -EPROTO;
}

static void append_some(struct buffer *out, const char *text)
{
    buffer_append(out, text ? text : "", text ? strnlen(text, 512) : 0);
}

static void append_problems(struct buffer *out, const struct buffer *body)
{
    _cleanup_answer_problems_ struct answer_problems *problems = NULL;

    if (answer_problems_parse(buffer_text(body), body->length, NULL, &problems, NULL) < 0)
        return;
    if (problems->errors_count) {
        const struct answer_problem *first = problems->errors[0];
        append_some(out, first->message ? first->message : first->code);
    } else {
        append_some(out, problems->details ? problems->details : problems->message);
    }
}

static int fail_status(const struct session *session, const struct session_call *call,
                       const struct buffer *body, struct error *err)
{
    _cleanup_buffer_ struct buffer words = BUFFER_INIT;
    int status = call->response.status;

    append_problems(&words, body);
    int code = code_of(status);
    error_set(err, code, "%s: %s: %s%s(status %d)", session->registry->name,
              call->what ? call->what : call->request.method, buffer_text(&words),
              words.length ? " " : "", status);
    if (code == -EACCES)
        error_hint(err, "is there a login for it? (cloche login %s)", session->registry->name);
    return code;
}

static int read_problem(struct session *session, struct http_lane *lane,
                        const struct session_call *call, struct error *err)
{
    _cleanup_buffer_ struct buffer body = BUFFER_INIT;
    const void *block = NULL;
    ssize_t n;

    while (body.length < PROBLEM_MAX && (n = http_read(lane, &block, NULL)) > 0)
        buffer_append(&body, block, (size_t)n < PROBLEM_MAX ? (size_t)n : PROBLEM_MAX);
    http_end(lane);
    return fail_status(session, call, &body, err);
}

static bool is_fine(const struct session_call *call)
{
    return (call->response.status >= 200 && call->response.status < 300) ||
           (call->response.status == 404 && call->missing_is_fine);
}

/* One attempt: once more with authorization when that is what is missing. */
static int attempt(struct session *session, struct http_lane *lane, struct session_call *call,
                   struct error *err)
{
    for (int round = 0;; round++) {
        _cleanup_free_ char *authorization = call->bare ? NULL : authorize_current(session);
        call->request.authorization = authorization;
        http_response_finish(&call->response);
        int r = http_begin(lane, &call->request, &call->response, err);
        call->request.authorization = NULL;
        if (r < 0)
            return r;
        if (call->response.status != 401 || round == 2 || !call->response.challenge || call->bare)
            return is_fine(call) ? 0 : read_problem(session, lane, call, err);
        http_end(lane);
        r = authorize(session, lane, call->response.challenge, authorization, err);
        if (r < 0)
            return r;
    }
}

int session_begin(struct session *session, struct http_lane *lane, struct session_call *call,
                  struct error *err)
{
    unsigned most = call->once ? 1 : session_attempts(session);

    for (unsigned i = 1;; i++) {
        _cleanup_error_ struct error reason = ERROR_INIT;
        int r = attempt(session, lane, call, &reason);
        if (r >= 0)
            return 0;
        if (!session_is_passing(r) || i >= most)
            return error_move(err, &reason);
        r = session_pause(session, i, call->response.retry_after, err);
        if (r < 0)
            return r;
    }
}

static int fetch_body(struct http_lane *lane, struct buffer *body, size_t limit, struct error *err)
{
    const void *block = NULL;
    ssize_t n;

    buffer_clear(body);
    while ((n = http_read(lane, &block, err)) > 0) {
        if (body->length + (size_t)n > limit) {
            n = error_set(err, -EFBIG, "the answer is longer than %zu bytes", limit);
            break;
        }
        buffer_append(body, block, (size_t)n);
    }
    http_end(lane);
    return (int)n;
}

int session_fetch(struct session *session, struct http_lane *lane, struct session_call *call,
                  struct buffer *body, size_t limit, struct error *err)
{
    unsigned most = session_attempts(session);

    for (unsigned i = 1;; i++) {
        _cleanup_error_ struct error reason = ERROR_INIT;
        int r = session_begin(session, lane, call, err);
        if (r < 0)
            return r;
        r = fetch_body(lane, body, limit, &reason);
        if (r >= 0)
            return 0;
        if (!session_is_passing(r) || i >= most || call->once)
            return error_move(err, &reason);
        r = session_pause(session, i, 0, err);
        if (r < 0)
            return r;
    }
}

void session_call_finish(struct session_call *call)
{
    http_response_finish(&call->response);
}
