/*
 * A registry and our standing with it: which of its endpoints answers, and what it wants to see
 * before it does. Shared by the threads of a request, each with a lane of its own.
 */
#ifndef REGISTRY_SESSION_H
#define REGISTRY_SESSION_H

#include <pthread.h>

#include <schema/image_worker.h>

#include "http.h"

enum {
    ENDPOINTS_MAX = 16,
    CERTIFICATE_MAX = 1024 * 1024, /* bytes of a file of certificates */
    TOKEN_MAX = 1024 * 1024,       /* bytes of the answer of a token service */
    PROBLEM_MAX = 64 * 1024,       /* bytes of the body of a failure */
    TOKEN_REFRESHES_MAX = 32,      /* of a session: each serves until it expires */
};

struct endpoint {
    const struct image_worker_endpoint *given;
    struct http_trust trust;
    struct http_settings settings;
};

struct session {
    const struct image_worker_registry *registry;
    struct endpoint endpoints[ENDPOINTS_MAX];
    size_t endpoints_count;
    const struct endpoint *endpoint; /* the one in use */
    char *scope;                     /* owned: repository:library/shop:pull */
    volatile bool stop;              /* set: requests under way are given up */
    pthread_mutex_t mutex;           /* guards authorization */
    char *authorization;             /* owned value of the header; NULL: none so far */
    pthread_mutex_t asking;          /* held during a token request; guards refreshes */
    unsigned refreshes;
};

/* Reads certificates: to be called while there are files. The registry is borrowed. */
int session_open(struct session *session, const struct image_worker_registry *registry,
                 struct error *err);
void session_close(struct session *session);

/* Takes the endpoint; what was learnt of another one is forgotten. scope: what will be asked for,
 * copied. */
void session_use(struct session *session, const struct endpoint *endpoint, const char *scope);

/* Whether the failure is one of this endpoint alone, so that the next may be tried. */
bool session_may_go_on(const struct session *session, int code);

/* "https://host/v2/" + the formatted path, owned. */
char *session_url(const struct session *session, const char *format, ...) _printf_(2, 3);
/* Where the header `Link: </v2/_catalog?last=z&n=1000>; rel="next"` leads (RFC 8288), as long as it
 * is the same list, whose path without "/v2/" is given. Owned; NULL: that was the last page. */
char *session_next_page(const struct session *session, const char *link, const char *path);

/* As http_begin() and http_fetch(), with authorization, and again after a pause when the connection
 * broke or the server was busy (requests that may be repeated only). Statuses that the caller knows
 * (2xx, and 404 with `missing_is_fine`) are success, others an error with the server's words:
 * -EACCES 401 and 403, -ENOENT 404, -EAGAIN 429 and 5xx, -EPROTO else. */
struct session_call {
    struct http_request request; /* authorization is filled in */
    struct http_response response;
    bool missing_is_fine;
    bool once;        /* not to be repeated after a failure of the connection */
    bool bare;        /* to another host than the registry's: nothing is said of who we are */
    const char *what; /* for messages: "manifest of shop:1" */
};
#define SESSION_CALL_INIT                                                                          \
    {                                                                                              \
        .request = HTTP_REQUEST_INIT                                                               \
    }
int session_begin(struct session *session, struct http_lane *lane, struct session_call *call,
                  struct error *err);
int session_fetch(struct session *session, struct http_lane *lane, struct session_call *call,
                  struct buffer *body, size_t limit, struct error *err);
void session_call_finish(struct session_call *call);
#define _cleanup_session_call_ _cleanup_(session_call_finish)

/* Whether a failure may be gone when it is tried again. */
bool session_is_passing(int code);
/* Waits before attempt n (1 is the first repetition): half a second, doubled each time, at most
 * half a minute, or what the server said. -ECANCELED when the session is stopped meanwhile. */
int session_pause(const struct session *session, unsigned attempt, uint64_t retry_after,
                  struct error *err);
unsigned session_attempts(const struct session *session);

#endif
