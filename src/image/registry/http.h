/*
 * HTTP through libcurl, for one thread: a lane is a connection that is used again and again. The
 * body of an answer is pulled, so that nothing is read faster than it is used.
 *
 * Blocking. A server that is silent for the lane's patience is given up (-ETIMEDOUT).
 */
#ifndef REGISTRY_HTTP_H
#define REGISTRY_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <base/buffer.h>
#include <base/error.h>

enum {
    HTTP_HEADERS_MAX = 64 * 1024, /* bytes of the headers of an answer */
    HTTP_REDIRECTS_MAX = 5,
    FETCH_SECONDS_MAX = 14400, /* of a file, however busy the server is */
};
#define FETCH_BYTES_MAX (64ULL << 30) /* of a file that is fetched */

/* Of an endpoint; read before the jail. PEM, owned by the trust store that made it. What is behind
 * the first member is for the endpoint's own host alone. */
struct http_trust {
    struct buffer authorities;
    struct buffer certificate; /* of the client */
    struct buffer key;
    bool insecure; /* certificates are not checked */
};

struct http_settings {
    const char *home; /* address of the endpoint */
    const struct http_trust *trust;
    const char *proxy;         /* NULL: none */
    unsigned patience;         /* seconds */
    const volatile bool *stop; /* true: give up with -ECANCELED; NULL: never */
};

struct http_request {
    const char *method; /* GET, HEAD, POST, PUT, PATCH */
    const char *url;
    const char *accept;        /* list of types; NULL: any */
    const char *authorization; /* value of the header; not sent to other hosts on redirects */
    const char *content_type;
    const char *content_range;
    uint64_t from; /* first byte wanted; 0: all of it */
    /* Body: of memory, or of a file. */
    const void *body;
    uint64_t body_length;
    int body_fd; /* -1: none */
    uint64_t body_offset;
    void (*sent)(void *context, uint64_t bytes); /* of the body, so far; NULL allowed */
    void *context;
};
#define HTTP_REQUEST_INIT                                                                          \
    {                                                                                              \
        .method = "GET", .body_fd = -1                                                             \
    }

struct http_response {
    int status;
    char *content_type; /* owned, without parameters; NULL: not given. So are the others */
    char *location;
    char *challenge; /* all WWW-Authenticate, joined by commas */
    char *content_digest;
    char *range; /* header Range, of uploads */
    char *link;
    char *last_modified;
    char *disposition;   /* Content-Disposition, whole */
    uint64_t first_byte; /* of Content-Range */
    bool has_first_byte;
    uint64_t retry_after; /* seconds; 0: not said */
    uint64_t length;      /* of the body */
    bool has_length;
};
void http_response_finish(struct http_response *response);
#define _cleanup_http_response_ _cleanup_(http_response_finish)

struct http_lane;

/* Before any thread and before the jail. */
void http_initialize(void);

struct http_lane *http_lane_create(const struct http_settings *settings); /* borrowed */
void http_lane_destroy(struct http_lane *lane);                           /* NULL allowed */
static inline void cleanup_http_lane_p(struct http_lane **lane)
{
    http_lane_destroy(*lane);
}
#define _cleanup_http_lane_ _cleanup_(cleanup_http_lane_p)

/* Sends a request and waits for the headers of the answer, whatever its status. GET and HEAD go
 * where redirects lead: from https never back to http, from http to http only where
 * url_may_be_plain(). A failure is one of the connection. *response is empty before. Both are
 * borrowed until http_end(). */
int http_begin(struct http_lane *lane, const struct http_request *request,
               struct http_response *response, struct error *err);
/* The next piece of the body, valid until the next call; 0 at its end. A body that ends before its
 * length is -ECONNRESET. */
ssize_t http_read(struct http_lane *lane, const void **ret_block, struct error *err);
/* The same as the content of the caller's buffer, whose memory the lane takes in exchange. */
ssize_t http_take(struct http_lane *lane, struct buffer *buffer, struct error *err);
/* Lets go of the answer; the connection is kept when the body was read to its end. */
void http_end(struct http_lane *lane);

/* All of it, with a body of at most limit bytes (more is -EFBIG). */
int http_fetch(struct http_lane *lane, const struct http_request *request,
               struct http_response *response, struct buffer *body, size_t limit,
               struct error *err);

#endif
