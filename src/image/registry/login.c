/* Whether credentials are good: the registry's own address (/v2/) with and without them. */
#include <errno.h>

#include <base/alloc.h>
#include <base/text.h>

#include "authorize.h"
#include "requests.h"
#include "session.h"
#include "worker.h"

enum { ANSWER_MAX = 64 * 1024 };

/* The challenge of an unauthorized request, owned; NULL: everybody may. */
static int get_challenge(struct session *session, struct http_lane *lane, char **ret,
                         struct error *err)
{
    _cleanup_http_response_ struct http_response response = {0};
    _cleanup_buffer_ struct buffer body = BUFFER_INIT;
    _cleanup_free_ char *url = session_url(session, "%s", "");
    struct http_request request = HTTP_REQUEST_INIT;

    request.url = url;
    int r = http_fetch(lane, &request, &response, &body, ANSWER_MAX, err);
    if (r < 0)
        return r;
    if (response.status == 401) {
        *ret = steal_ptr(response.challenge);
        return *ret
                   ? 0
                   : error_set(err, -EPROTO, "%s: it refuses access and does not say what it wants",
                               session->registry->name);
    }
    *ret = NULL;
    if (response.status / 100 == 2)
        return 0;
    return error_set(err, -EPROTO, "%s: this is no registry (status %d for /v2/)",
                     session->registry->name, response.status);
}

static int try_credentials(struct session *session, struct http_lane *lane,
                           struct image_worker_logged_in *result, struct error *err)
{
    _cleanup_session_call_ struct session_call call = SESSION_CALL_INIT;
    _cleanup_buffer_ struct buffer body = BUFFER_INIT;
    _cleanup_free_ char *url = session_url(session, "%s", "");
    _cleanup_free_ char *challenge = NULL;
    int r = get_challenge(session, lane, &challenge, err);

    if (r < 0 || !challenge)
        return r;
    call.request.url = url;
    call.what = "login";
    r = session_fetch(session, lane, &call, &body, ANSWER_MAX, err);
    return r < 0 ? r : authorize_keep(session, lane, challenge, &result->identity_token, err);
}

static int login(struct session *session, struct image_worker_logged_in *result, struct error *err)
{
    for (size_t i = 0;; i++) {
        _cleanup_error_ struct error reason = ERROR_INIT;
        session_use(session, &session->endpoints[i], "");
        _cleanup_http_lane_ struct http_lane *lane = http_lane_create(&session->endpoint->settings);
        int r = session->endpoint->given->mirror ? error_set(&reason, -EAGAIN, "a mirror")
                                                 : try_credentials(session, lane, result, &reason);
        if (r == 0)
            return 0;
        if (!session_may_go_on(session, r))
            return error_move(err, &reason);
    }
}

int registry_login(const struct image_worker_login *request, struct image_worker_result **ret,
                   struct error *err)
{
    const struct jail jail = {.has_network = true};
    _cleanup_image_worker_result_ struct image_worker_result *result =
        xnew(struct image_worker_result);
    struct session session;
    int r = session_open(&session, request->registry, err);

    result->logged_in = xnew(struct image_worker_logged_in);
    if (r == 0)
        r = jail_enter(&jail, err);
    if (r == 0)
        r = login(&session, result->logged_in, err);
    session_close(&session);
    if (r == 0)
        *ret = steal_ptr(result);
    return r;
}
