#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include <base/alloc.h>
#include <base/text.h>

#include "handshake.h"

enum {
    KEY_LENGTH = 24, /* base64 of 16 bytes */
    SHA1_LENGTH = 20,
    TOKENS_MAX = 64, /* of a list in a header */
    HOST_MAX = 255,
    ORIGIN_MAX = 2048, /* of the introduction, runtime-spec/rpc.json */
};

#define WEBSOCKET_GUID "258EAFA5-E914-47DA-95CA-C5AB0DC85B11" /* RFC 6455, 1.3 */

/* Whether the list of a header (RFC 9110, 5.6.1) has the token; in any case, unless exact. */
static bool has_token(const char *list, const char *token, bool exact)
{
    size_t length = strlen(token);

    for (int i = 0; list && i < TOKENS_MAX; i++) {
        list += strspn(list, " \t,");
        size_t found = strcspn(list, ",");
        size_t end = found;
        while (end && (list[end - 1] == ' ' || list[end - 1] == '\t'))
            end--;
        if (end == length &&
            (exact ? strncmp(list, token, length) : strncasecmp(list, token, length)) == 0)
            return true;
        if (!list[found])
            return false;
        list += found;
    }
    return false;
}

static bool key_is_valid(const char *key)
{
    unsigned char bytes[KEY_LENGTH];
    size_t length = sizeof(bytes);

    if (!key || strlen(key) != KEY_LENGTH)
        return false;
    const gnutls_datum_t text = {(unsigned char *)(uintptr_t)key, KEY_LENGTH};
    gnutls_datum_t decoded = {NULL, 0};
    if (gnutls_base64_decode2(&text, &decoded) < 0)
        return false;
    length = decoded.size;
    gnutls_free(decoded.data);
    return length == 16;
}

static bool compute_accept(const char *key, char *ret)
{
    char text[KEY_LENGTH + sizeof(WEBSOCKET_GUID)];
    unsigned char digest[SHA1_LENGTH];
    gnutls_datum_t encoded = {NULL, 0};

    snprintf(text, sizeof(text), "%s%s", key, WEBSOCKET_GUID);
    if (gnutls_hash_fast(GNUTLS_DIG_SHA1, text, strlen(text), digest) < 0 ||
        gnutls_base64_encode2(&(gnutls_datum_t){digest, sizeof(digest)}, &encoded) < 0)
        return false;
    bool fits = encoded.size == HANDSHAKE_ACCEPT_LENGTH;
    if (fits) {
        memcpy(ret, encoded.data, HANDSHAKE_ACCEPT_LENGTH);
        ret[HANDSHAKE_ACCEPT_LENGTH] = '\0';
    }
    gnutls_free(encoded.data);
    return fits;
}

/* ---- origins ---- */

/* With the port that the scheme has if none is named: browsers leave that out. */
static void complete_host(const char *host, bool tls, char ret[HOST_MAX + sizeof(":443")])
{
    const char *bracket = strrchr(host, ']');
    bool has_port = strchr(bracket ? bracket : host, ':') != NULL;

    snprintf(ret, HOST_MAX + sizeof(":443"), "%.*s%s", HOST_MAX, host,
             has_port ? ""
             : tls    ? ":443"
                      : ":80");
}

/* A name that nobody else can make point here: the address itself, or localhost where only this
 * machine can come. Any other name might be a stranger's (DNS rebinding). */
static bool host_is_ours(const char *host, const struct handshake_rules *rules)
{
    const char *port = strrchr(rules->local, ':');

    if (strcasecmp(host, rules->local) == 0)
        return true;
    if (!rules->loopback || !port)
        return false;
    return strncasecmp(host, "localhost", strlen("localhost")) == 0 &&
           text_equal(host + strlen("localhost"), port);
}

static bool is_same_origin(const char *origin, const char *host,
                           const struct handshake_rules *rules)
{
    const char *scheme = rules->tls ? "https://" : "http://";
    char from[HOST_MAX + sizeof(":443")], to[HOST_MAX + sizeof(":443")];

    if (!host || strlen(host) > HOST_MAX || strlen(origin) > HOST_MAX ||
        strncasecmp(origin, scheme, strlen(scheme)) != 0)
        return false;
    complete_host(origin + strlen(scheme), rules->tls, from);
    complete_host(host, rules->tls, to);
    return strcasecmp(from, to) == 0 && host_is_ours(to, rules);
}

bool handshake_origin_allowed(const char *origin, const char *host,
                              const struct handshake_rules *rules)
{
    for (char **allowed = rules->origins; allowed && *allowed; allowed++)
        if (text_equal(*allowed, "*") || strcasecmp(*allowed, origin) == 0)
            return true;
    return is_same_origin(origin, host, rules);
}

/* ---- the request ---- */

static void refuse(struct handshake_answer *answer, unsigned status, const char *problem)
{
    answer->status = status;
    answer->problem = problem;
}

void handshake_check(const struct handshake_request *request, const struct handshake_rules *rules,
                     struct handshake_answer *ret)
{
    *ret = (struct handshake_answer){.status = 101};
    if (!text_equal(request->method, "GET"))
        refuse(ret, 405, "a WebSocket is opened with GET");
    else if (!text_equal(request->version, "HTTP/1.1"))
        refuse(ret, 400, "a WebSocket is opened with HTTP/1.1");
    else if (request->hosts != 1 || strlen(request->host) > HOST_MAX)
        refuse(ret, 400, "exactly one Host is needed");
    else if (!has_token(request->upgrade, "websocket", false) ||
             !has_token(request->connection, "upgrade", false))
        refuse(ret, 426, "this is a WebSocket: connect with ws:// or wss://");
    else if (!text_equal(request->websocket_version, "13"))
        refuse(ret, 426, "the WebSocket version spoken here is 13");
    else if (request->keys != 1 || !key_is_valid(request->key))
        refuse(ret, 400, "exactly one Sec-WebSocket-Key is needed, 16 bytes in base64");
    else if (request->origins > 1)
        refuse(ret, 400, "there is more than one Origin");
    else if (request->origin && strlen(request->origin) > ORIGIN_MAX)
        refuse(ret, 400, "the Origin is too long");
    else if (request->origin && !handshake_origin_allowed(request->origin, request->host, rules))
        refuse(ret, 403, "pages of this origin may not come in");
    else if (request->protocols && !has_token(request->protocols, HANDSHAKE_PROTOCOL, true))
        refuse(ret, 400, "the subprotocol spoken here is " HANDSHAKE_PROTOCOL);
    else if (!compute_accept(request->key, ret->accept))
        refuse(ret, 500, "the key cannot be answered");
    ret->protocol = ret->status == 101 && request->protocols;
}
