#include <curl/curl.h>
#include <errno.h>
#include <openssl/evp.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/registry_answers.h>

#include "authorize.h"
#include "challenge.h"
#include "url.h"

static const struct image_worker_credentials *credentials_of(const struct session *session)
{
    return session->endpoint->given->mirror ? NULL : session->registry->credentials;
}

static bool has_password(const struct image_worker_credentials *credentials)
{
    return credentials && !text_empty(credentials->username) && credentials->password;
}

char *authorize_current(struct session *session)
{
    const struct image_worker_credentials *credentials = credentials_of(session);

    pthread_mutex_lock(&session->mutex);
    char *copy = xstrdup(session->authorization);
    pthread_mutex_unlock(&session->mutex);
    if (!copy && credentials && !text_empty(credentials->registry_token))
        copy = xasprintf("Bearer %s", credentials->registry_token);
    return copy;
}

static char *basic(const struct image_worker_credentials *credentials)
{
    _cleanup_free_ char *plain = xasprintf("%s:%s", credentials->username, credentials->password);
    size_t length = strlen(plain);
    _cleanup_free_ char *encoded = xmalloc(4 * (length / 3 + 1) + 1);

    EVP_EncodeBlock((unsigned char *)encoded, (const unsigned char *)plain, (int)length);
    return xasprintf("Basic %s", encoded);
}

/* ---- the token service ---- */

static void add_field(struct buffer *query, const char *name, const char *value)
{
    if (text_empty(value))
        return;
    char *escaped = curl_easy_escape(NULL, value, 0);
    if (query->length)
        buffer_append_char(query, '&');
    buffer_printf(query, "%s=%s", name, escaped ? escaped : "");
    curl_free(escaped);
}

/* Several scopes stand apart by blanks. */
static void add_scopes(struct buffer *query, const struct session *session,
                       const struct challenge *challenge)
{
    _cleanup_strv_ char **scopes = strv_split(
        text_empty(session->scope) ? (challenge->scope ? challenge->scope : "") : session->scope,
        ' ');

    for (size_t i = 0; scopes && scopes[i]; i++)
        add_field(query, "scope", scopes[i]);
}

/* A token service gets to see passwords, and without TLS so does everybody on the way. */
static int check_realm(const struct session *session, const char *realm, struct error *err)
{
    if (text_starts_with(realm, "https://") ||
        url_may_be_plain(session->endpoint->given->url, realm))
        return 0;
    return error_set(err, -EACCES, "%s: its token service '%.200s' has no TLS",
                     session->registry->name, realm);
}

/* GET, with basic credentials where there are some. */
static int ask_plainly(struct session *session, struct http_lane *lane,
                       const struct challenge *challenge, bool offline, struct buffer *body,
                       struct http_response *response, struct error *err)
{
    const struct image_worker_credentials *credentials = credentials_of(session);
    _cleanup_buffer_ struct buffer query = BUFFER_INIT;
    struct http_request request = HTTP_REQUEST_INIT;
    _cleanup_free_ char *authorization = has_password(credentials) ? basic(credentials) : NULL;

    add_field(&query, "account", authorization ? credentials->username : NULL);
    add_field(&query, "client_id", "cloche");
    add_field(&query, "offline_token", offline ? "true" : NULL);
    add_field(&query, "service", challenge->service);
    add_scopes(&query, session, challenge);
    _cleanup_free_ char *url = xasprintf(
        "%s%c%s", challenge->realm, strchr(challenge->realm, '?') ? '&' : '?', buffer_text(&query));
    request.url = url;
    request.authorization = authorization;
    request.accept = "application/json";
    return http_fetch(lane, &request, response, body, TOKEN_MAX, err);
}

/* POST (OAuth2), with the identity token of an earlier login. */
static int ask_by_identity(struct session *session, struct http_lane *lane,
                           const struct challenge *challenge, struct buffer *body,
                           struct http_response *response, struct error *err)
{
    const struct image_worker_credentials *credentials = credentials_of(session);
    _cleanup_buffer_ struct buffer form = BUFFER_INIT;
    struct http_request request = HTTP_REQUEST_INIT;
    const char *scope = text_empty(session->scope) ? challenge->scope : session->scope;

    add_field(&form, "grant_type", "refresh_token");
    add_field(&form, "client_id", "cloche");
    add_field(&form, "service", challenge->service);
    add_field(&form, "scope", scope);
    add_field(&form, "refresh_token", credentials->identity_token);
    request.method = "POST";
    request.url = challenge->realm;
    request.content_type = "application/x-www-form-urlencoded";
    request.accept = "application/json";
    request.body = form.data;
    request.body_length = form.length;
    return http_fetch(lane, &request, response, body, TOKEN_MAX, err);
}

static bool is_header_text(const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text <= ' ' || (unsigned char)*text >= 0x7f)
            return false;
    return true;
}

static int ask_service(struct session *session, struct http_lane *lane,
                       const struct challenge *challenge, bool offline, struct answer_token **ret,
                       struct error *err)
{
    const struct image_worker_credentials *credentials = credentials_of(session);
    _cleanup_http_response_ struct http_response response = {0};
    _cleanup_buffer_ struct buffer body = BUFFER_INIT;
    int r = check_realm(session, challenge->realm, err);

    if (r < 0)
        return r;
    if (credentials && !text_empty(credentials->identity_token) && !offline)
        r = ask_by_identity(session, lane, challenge, &body, &response, err);
    else
        r = ask_plainly(session, lane, challenge, offline, &body, &response, err);
    if (r < 0)
        return r;
    if (response.status == 429 || response.status >= 500)
        return error_set(err, -EAGAIN, "%s: its token service is busy (status %d)",
                         session->registry->name, response.status);
    if (response.status != 200) {
        error_set(err, -EACCES, "%s: its token service refuses access%s (status %d)",
                  session->registry->name, credentials ? " with these credentials" : "",
                  response.status);
        error_hint(err, "cloche login %s", session->registry->name);
        return -EACCES;
    }
    r = answer_token_parse(buffer_text(&body), body.length, "token service", ret, err);
    return r < 0 ? error_context(err, "%s", session->registry->name), r : 0;
}

static int get_token(struct session *session, struct http_lane *lane,
                     const struct challenge *challenge, char **ret, struct error *err)
{
    _cleanup_answer_token_ struct answer_token *answer = NULL;
    int r = ask_service(session, lane, challenge, false, &answer, err);

    if (r < 0)
        return r;
    const char *token = text_empty(answer->token) ? answer->access_token : answer->token;
    if (text_empty(token) || !is_header_text(token))
        return error_set(err, -EPROTO, "%s: its token service gives no token",
                         session->registry->name);
    *ret = xasprintf("Bearer %s", token);
    return 0;
}

/* ---- what a challenge asks for ---- */

static int refuse(const struct session *session, struct error *err)
{
    bool given = credentials_of(session);

    error_set(err, -EACCES, "%s: %s", session->registry->name,
              given ? "unauthorized: the credentials are not accepted"
                    : "unauthorized: authentication required");
    error_hint(err, "cloche login %s", session->registry->name);
    return -EACCES;
}

static int answer_challenge(struct session *session, struct http_lane *lane, const char *text,
                            const char *refused, char **ret, struct error *err)
{
    const struct image_worker_credentials *credentials = credentials_of(session);
    struct challenge challenge = {0};
    int r;

    challenge_parse(text, &challenge);
    if (challenge.scheme == CHALLENGE_BEARER && session->refreshes++ < TOKEN_REFRESHES_MAX) {
        r = get_token(session, lane, &challenge, ret, err);
    } else if (challenge.scheme == CHALLENGE_BASIC && has_password(credentials) && !refused) {
        *ret = basic(credentials);
        r = 0;
    } else {
        r = refuse(session, err);
    }
    challenge_finish(&challenge);
    return r;
}

/* While one thread asks, those that have been refused meanwhile wait for its answer; those that
 * have not go on with what there is. */
int authorize(struct session *session, struct http_lane *lane, const char *challenge,
              const char *refused, struct error *err)
{
    char *authorization = NULL;
    int r = 0;

    pthread_mutex_lock(&session->asking);
    _cleanup_free_ char *current = authorize_current(session);
    if (text_equal(current, refused) || !current) {
        r = answer_challenge(session, lane, challenge, refused, &authorization, err);
        if (r == 0) {
            pthread_mutex_lock(&session->mutex);
            free(session->authorization);
            session->authorization = authorization;
            pthread_mutex_unlock(&session->mutex);
        }
    }
    pthread_mutex_unlock(&session->asking);
    return r;
}

int authorize_keep(struct session *session, struct http_lane *lane, const char *text,
                   char **ret_token, struct error *err)
{
    _cleanup_answer_token_ struct answer_token *answer = NULL;
    struct challenge challenge = {0};
    int r = 0;

    *ret_token = NULL;
    challenge_parse(text, &challenge);
    if (challenge.scheme == CHALLENGE_BEARER)
        r = ask_service(session, lane, &challenge, true, &answer, err);
    if (r == 0 && answer && !text_empty(answer->refresh_token))
        *ret_token = xstrdup(answer->refresh_token);
    challenge_finish(&challenge);
    return r;
}
