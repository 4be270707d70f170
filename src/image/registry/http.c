#include <curl/curl.h>
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/text.h>

#include "http.h"
#include "url.h"

enum {
    BODY_BUFFERED = 1024 * 1024, /* bytes; the server has to wait then */
    RECEIVE_SIZE = 256 * 1024,
    UPLOAD_SIZE = 256 * 1024,
    CONNECT_SECONDS = 20,
    WAIT_MILLISECONDS = 500,
    PACE_BYTES = 1024, /* within the lane's patience: less is silence */
};

struct http_lane {
    const struct http_settings *settings;
    CURL *easy;
    CURLM *multi;
    struct curl_slist *headers;
    struct http_response *response;
    const struct http_request *request;
    char *url;          /* owned: of the request, or where redirects have led so far */
    bool away;          /* they have led to another host */
    struct buffer body; /* arrived, and not read */
    bool given;         /* the reader has body */
    size_t header_bytes;
    uint64_t sent;
    int64_t since;  /* monotonic seconds, when the pace began to be watched */
    uint64_t moved; /* bytes in and out since then */
    bool attached, paused, done, headers_over, too_much, barred;
    int result; /* CURLcode, once done */
    char message[CURL_ERROR_SIZE];
};

void http_initialize(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

void http_response_finish(struct http_response *response)
{
    free(response->content_type);
    free(response->location);
    free(response->challenge);
    free(response->content_digest);
    free(response->range);
    free(response->link);
    free(response->last_modified);
    free(response->disposition);
    *response = (struct http_response){0};
}

static int64_t now_seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

/* ---- what curl calls ---- */

static bool is_link_local(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *four = (const void *)address;
        return ntohl(four->sin_addr.s_addr) >> 16 == 0xa9fe;
    }
    const struct sockaddr_in6 *six = (const void *)address;
    if (address->sa_family != AF_INET6)
        return false;
    if (IN6_IS_ADDR_V4MAPPED(&six->sin6_addr))
        return six->sin6_addr.s6_addr[12] == 169 && six->sin6_addr.s6_addr[13] == 254;
    return IN6_IS_ADDR_LINKLOCAL(&six->sin6_addr);
}

/* Clouds answer with a machine's credentials there; only who names such an address means it.
 * Whatever names a server's word has, this sees the address that they come to. */
static curl_socket_t open_socket(void *context, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct http_lane *lane = context;

    if (!url_same_host(lane->url, lane->settings->home) && !lane->settings->proxy &&
        is_link_local(&address->addr)) {
        lane->barred = true;
        return CURL_SOCKET_BAD;
    }
    lane->barred = false; /* another address of that name */
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

static size_t take_body(char *data, size_t size, size_t count, void *context)
{
    struct http_lane *lane = context;
    size_t length = size * count;

    lane->headers_over = true;
    if (lane->body.length > BODY_BUFFERED) {
        lane->paused = true;
        return CURL_WRITEFUNC_PAUSE;
    }
    buffer_append(&lane->body, data, length);
    lane->moved += length;
    return length;
}

static size_t give_body(char *data, size_t size, size_t count, void *context)
{
    struct http_lane *lane = context;
    const struct http_request *request = lane->request;
    size_t room = size * count;
    uint64_t left = request->body_length - lane->sent;
    size_t length = left < room ? (size_t)left : room;

    if (request->body_fd < 0) {
        memcpy(data, (const char *)request->body + lane->sent, length);
    } else {
        ssize_t n =
            pread(request->body_fd, data, length, (off_t)(request->body_offset + lane->sent));
        if (n < 0 || (n == 0 && length))
            return CURL_READFUNC_ABORT;
        length = (size_t)n;
    }
    lane->sent += length;
    lane->moved += length;
    if (request->sent)
        request->sent(request->context, lane->sent);
    return length;
}

/* curl sends a body anew after a redirect or on a connection that was closed. */
static int rewind_body(void *context, curl_off_t offset, int origin)
{
    struct http_lane *lane = context;

    if (origin != SEEK_SET || offset < 0 || (uint64_t)offset > lane->request->body_length)
        return CURL_SEEKFUNC_FAIL;
    lane->sent = (uint64_t)offset;
    return CURL_SEEKFUNC_OK;
}

static void set_text(char **place, const char *value, size_t length)
{
    free(*place);
    *place = xstrndup(value, length);
}

static uint64_t leading_number(const char *text, size_t length)
{
    uint64_t number = 0;

    for (size_t i = 0; i < length && text[i] >= '0' && text[i] <= '9'; i++) {
        if (number > UINT64_MAX / 10 - 1)
            return 0;
        number = number * 10 + (uint64_t)(text[i] - '0');
    }
    return number;
}

static void add_challenge(struct http_response *response, const char *value, size_t length)
{
    char *joined = response->challenge
                       ? xasprintf("%s, %.*s", response->challenge, (int)length, value)
                       : xstrndup(value, length);

    free(response->challenge);
    response->challenge = joined;
}

static void set_header(struct http_response *response, const char *name, size_t name_length,
                       const char *value, size_t length)
{
    static const struct {
        const char *name;
        size_t offset;
    } texts[] = {
        {"location", offsetof(struct http_response, location)},
        {"docker-content-digest", offsetof(struct http_response, content_digest)},
        {"range", offsetof(struct http_response, range)},
        {"link", offsetof(struct http_response, link)},
        {"last-modified", offsetof(struct http_response, last_modified)},
        {"content-disposition", offsetof(struct http_response, disposition)},
    };
#define IS(text) (name_length == strlen(text) && strncasecmp(name, text, name_length) == 0)

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        if (IS(texts[i].name))
            set_text((char **)((char *)response + texts[i].offset), value, length);
    if (IS("content-type")) {
        const char *semicolon = memchr(value, ';', length);
        set_text(&response->content_type, value, semicolon ? (size_t)(semicolon - value) : length);
    } else if (IS("www-authenticate")) {
        add_challenge(response, value, length);
    } else if (IS("retry-after")) {
        response->retry_after = leading_number(value, length);
    } else if (IS("content-range") && length > 6 && strncasecmp(value, "bytes ", 6) == 0) {
        response->first_byte = leading_number(value + 6, length - 6);
        response->has_first_byte = true;
    }
#undef IS
}

/* Each answer on the way (1xx) begins anew, the last one counts; their headers together are
 * limited, and they are no headway. */
static size_t take_header(char *data, size_t size, size_t count, void *context)
{
    struct http_lane *lane = context;
    size_t length = size * count;
    const char *colon = memchr(data, ':', length);

    lane->header_bytes += length;
    if (lane->header_bytes > HTTP_HEADERS_MAX) {
        lane->too_much = true;
        return 0;
    }
    if (length >= 5 && strncasecmp(data, "HTTP/", 5) == 0) {
        http_response_finish(lane->response);
        return length;
    }
    if (!colon)
        return length;
    const char *value = colon + 1;
    size_t value_length = length - (size_t)(value - data);
    while (value_length && (*value == ' ' || *value == '\t'))
        value++, value_length--;
    while (value_length && strchr(" \t\r\n", value[value_length - 1]))
        value_length--;
    set_header(lane->response, data, (size_t)(colon - data), value, value_length);
    return length;
}

/* ---- lanes ---- */

/* NULL: none. */
static void set_blob(CURL *easy, CURLoption option, const struct buffer *text)
{
    struct curl_blob blob = {.flags = CURL_BLOB_NOCOPY};

    if (text) {
        blob.data = text->data;
        blob.len = text->length;
    }
    curl_easy_setopt(easy, option, blob.len ? &blob : NULL);
}

/* Who we are is shown to the endpoint's own host only, and no other goes unchecked. */
static void set_trust(struct http_lane *lane)
{
    const struct http_trust *trust = lane->settings->trust;
    CURL *easy = lane->easy;
    bool own = url_same_host(lane->url, lane->settings->home), insecure = own && trust->insecure;

    set_blob(easy, CURLOPT_CAINFO_BLOB, &trust->authorities);
    set_blob(easy, CURLOPT_SSLCERT_BLOB, own ? &trust->certificate : NULL);
    set_blob(easy, CURLOPT_SSLKEY_BLOB, own ? &trust->key : NULL);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, insecure ? 0L : 1L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, insecure ? 0L : 2L);
}

struct http_lane *http_lane_create(const struct http_settings *settings)
{
    struct http_lane *lane = xnew(struct http_lane);
    CURL *easy = lane->easy = curl_easy_init();

    lane->settings = settings;
    lane->multi = curl_multi_init();
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, lane->message);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "cloche");
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, (long)RECEIVE_SIZE);
    curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, (long)UPLOAD_SIZE);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_SECONDS);
    curl_easy_setopt(easy, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    curl_easy_setopt(easy, CURLOPT_PROXY, settings->proxy ? settings->proxy : "");
    curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L); /* by us: see follow() */
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, lane);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, lane);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, take_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, lane);
    curl_easy_setopt(easy, CURLOPT_READFUNCTION, give_body);
    curl_easy_setopt(easy, CURLOPT_READDATA, lane);
    curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, rewind_body);
    curl_easy_setopt(easy, CURLOPT_SEEKDATA, lane);
    return lane;
}

void http_lane_destroy(struct http_lane *lane)
{
    if (!lane)
        return;
    http_end(lane);
    curl_easy_cleanup(lane->easy);
    curl_multi_cleanup(lane->multi);
    buffer_finish(&lane->body);
    free(lane->url);
    free(lane);
}

/* ---- a request ---- */

static void add_header(struct http_lane *lane, const char *name, const char *value)
{
    if (!value)
        return;
    _cleanup_free_ char *line = xasprintf("%s: %s", name, value);
    lane->headers = curl_slist_append(lane->headers, line);
}

static void set_method(CURL *easy, const struct http_request *request)
{
    bool head = text_equal(request->method, "HEAD");
    bool body = request->body || request->body_fd >= 0 || text_equal(request->method, "PUT") ||
                text_equal(request->method, "PATCH");

    curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
    curl_easy_setopt(easy, CURLOPT_NOBODY, head ? 1L : 0L);
    curl_easy_setopt(easy, CURLOPT_UPLOAD, 0L);
    if (text_equal(request->method, "POST") && !body) {
        curl_easy_setopt(easy, CURLOPT_POST, 1L);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)0);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, "");
    } else if (body) {
        curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)request->body_length);
    }
    curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, head ? NULL : request->method);
}

static void set_request(struct http_lane *lane, const struct http_request *request)
{
    CURL *easy = lane->easy;

    add_header(lane, "Accept", request->accept);
    add_header(lane, "Authorization", lane->away ? NULL : request->authorization);
    add_header(lane, "Content-Type", request->content_type);
    add_header(lane, "Content-Range", request->content_range);
    lane->headers = curl_slist_append(lane->headers, "Expect:");
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_URL, lane->url);
    set_method(easy, request);
    set_trust(lane);
    if (request->from) {
        _cleanup_free_ char *range = xasprintf("%llu-", (unsigned long long)request->from);
        curl_easy_setopt(easy, CURLOPT_RANGE, range);
    } else {
        curl_easy_setopt(easy, CURLOPT_RANGE, NULL);
    }
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, lane->headers);
}

static int errno_of(const struct http_lane *lane)
{
    switch (lane->result) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
        return -EHOSTUNREACH;
    case CURLE_COULDNT_CONNECT:
        return -ECONNREFUSED;
    case CURLE_OPERATION_TIMEDOUT:
        return -ETIMEDOUT;
    case CURLE_SSL_CONNECT_ERROR:
        return -EPROTONOSUPPORT;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
        return -EKEYREJECTED;
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
        return -EINVAL;
    case CURLE_READ_ERROR:
    case CURLE_ABORTED_BY_CALLBACK:
        return -EIO;
    default:
        return -ECONNRESET;
    }
}

/* host[:port] is what a person knows; the rest of the address may hold secrets of a redirect. */
static int fail_with_place(struct http_lane *lane, int code, const char *why, struct error *err)
{
    const char *url = lane->url, *start = strstr(url, "://");
    size_t length = strcspn(start ? start + 3 : url, "?");

    return error_set(err, code, "%s %.*s%.*s: %s", lane->request->method,
                     (int)(start ? start + 3 - url : 0), url, (int)length, start ? start + 3 : url,
                     why);
}

static int connection_failure(struct http_lane *lane, struct error *err)
{
    if (lane->too_much)
        return fail_with_place(lane, -EBADMSG, "headers of more than 64 KiB (HTTP_HEADERS_MAX)",
                               err);
    if (lane->barred)
        return fail_with_place(lane, -EACCES, "a server's word leads to a link-local address", err);
    return fail_with_place(
        lane, errno_of(lane),
        lane->message[0] ? lane->message : curl_easy_strerror((CURLcode)lane->result), err);
}

static void note_end(struct http_lane *lane)
{
    CURLMsg *message;
    int left;

    while ((message = curl_multi_info_read(lane->multi, &left))) {
        if (message->msg != CURLMSG_DONE)
            continue;
        lane->done = true;
        lane->result = message->data.result;
    }
}

static int check_pace(struct http_lane *lane, struct error *err)
{
    int64_t now = now_seconds();

    if (lane->settings->stop && *lane->settings->stop)
        return error_set(err, -ECANCELED, "given up");
    if (lane->moved >= PACE_BYTES) {
        lane->since = now;
        lane->moved = 0;
    }
    if (now - lane->since < (int64_t)lane->settings->patience)
        return 0;
    _cleanup_free_ char *why =
        xasprintf("the server has been silent for %u seconds", lane->settings->patience);
    return fail_with_place(lane, -ETIMEDOUT, why, err);
}

/* One step: what is there is taken; when there was nothing, waits a little. */
static int step(struct http_lane *lane, struct error *err)
{
    size_t before = lane->body.length;
    int running = 0;

    if (lane->paused) {
        lane->paused = false;
        curl_easy_pause(lane->easy, CURLPAUSE_CONT);
    }
    CURLMcode code = curl_multi_perform(lane->multi, &running);
    if (code != CURLM_OK)
        return fail_with_place(lane, -EIO, curl_multi_strerror(code), err);
    note_end(lane);
    if (lane->done || lane->body.length > before)
        return 0;
    int r = check_pace(lane, err);
    if (r == 0)
        curl_multi_poll(lane->multi, NULL, 0, WAIT_MILLISECONDS, NULL);
    return r;
}

static void note_answer(struct http_lane *lane)
{
    long status = 0;
    curl_off_t length = -1;

    curl_easy_getinfo(lane->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(lane->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    lane->response->status = (int)status;
    lane->response->has_length = length >= 0;
    lane->response->length = length >= 0 ? (uint64_t)length : 0;
}

static void set_url(struct http_lane *lane, const char *url)
{
    char *copy = xstrdup(url);

    free(lane->url);
    lane->url = copy;
}

/* One request to lane->url. */
static int ask(struct http_lane *lane, struct error *err)
{
    int r = 0;

    lane->since = now_seconds();
    lane->message[0] = '\0';
    set_request(lane, lane->request);
    curl_multi_add_handle(lane->multi, lane->easy);
    lane->attached = true;
    while (r == 0 && !lane->done && !lane->headers_over)
        r = step(lane, err);
    if (r == 0 && lane->done && lane->result != CURLE_OK)
        r = connection_failure(lane, err);
    if (r < 0) {
        http_end(lane);
        return r;
    }
    note_answer(lane);
    return 0;
}

static bool leads_on(const struct http_lane *lane)
{
    int status = lane->response->status;
    bool read_only =
        text_equal(lane->request->method, "GET") || text_equal(lane->request->method, "HEAD");

    return read_only && lane->response->location && status / 100 == 3 && status != 300 &&
           status != 304;
}

/* To its end, so that the connection can be used again, unless it is long. */
static void read_rest(struct http_lane *lane)
{
    const void *block;
    size_t length = 0;
    ssize_t n;

    while (length < HTTP_HEADERS_MAX && (n = http_read(lane, &block, NULL)) > 0)
        length += (size_t)n;
    http_end(lane);
}

/* Goes where a redirect leads, which is another host's word from there on. */
static int follow(struct http_lane *lane, struct error *err)
{
    _cleanup_free_ char *target = url_resolve(lane->url, lane->response->location);
    bool tls = target && text_starts_with(target, "https://");

    if (!target || (!tls && !text_starts_with(target, "http://")))
        return fail_with_place(lane, -EINVAL, "it redirects to what is no address", err);
    if (!tls && (text_starts_with(lane->url, "https://") ||
                 (!url_may_be_plain(lane->settings->home, target) &&
                  url_is_loopback(lane->settings->home))))
        return fail_with_place(lane, -EACCES, "it redirects to a server without TLS", err);
    read_rest(lane);
    lane->away = lane->away || !url_same_origin(lane->url, target);
    set_url(lane, target);
    return ask(lane, err);
}

int http_begin(struct http_lane *lane, const struct http_request *request,
               struct http_response *response, struct error *err)
{
    http_end(lane);
    lane->request = request;
    lane->response = response;
    lane->away = false;
    set_url(lane, request->url);
    int r = ask(lane, err);
    for (int i = 0; r == 0 && leads_on(lane); i++)
        r = i < HTTP_REDIRECTS_MAX
                ? follow(lane, err)
                : fail_with_place(lane, -EINVAL, "more than 5 redirects (HTTP_REDIRECTS_MAX)", err);
    if (r < 0)
        http_end(lane);
    return r;
}

/* 1: there is some of the body. */
static int wait_for_body(struct http_lane *lane, struct error *err)
{
    if (lane->given)
        buffer_clear(&lane->body);
    lane->given = false;
    while (!lane->body.length && !lane->done) {
        int r = step(lane, err);
        if (r < 0)
            return r;
    }
    if (lane->body.length)
        return 1;
    return lane->result == CURLE_OK ? 0 : connection_failure(lane, err);
}

ssize_t http_read(struct http_lane *lane, const void **ret_block, struct error *err)
{
    int r = wait_for_body(lane, err);

    if (r <= 0)
        return r;
    *ret_block = lane->body.data;
    lane->given = true;
    return (ssize_t)lane->body.length;
}

ssize_t http_take(struct http_lane *lane, struct buffer *buffer, struct error *err)
{
    int r = wait_for_body(lane, err);

    if (r <= 0)
        return r;
    struct buffer body = lane->body;
    buffer_clear(buffer);
    lane->body = *buffer;
    *buffer = body;
    return (ssize_t)buffer->length;
}

void http_end(struct http_lane *lane)
{
    if (lane->attached)
        curl_multi_remove_handle(lane->multi, lane->easy);
    curl_easy_setopt(lane->easy, CURLOPT_HTTPHEADER, NULL);
    curl_slist_free_all(lane->headers);
    lane->headers = NULL;
    buffer_clear(&lane->body);
    lane->header_bytes = 0;
    lane->sent = lane->moved = 0;
    lane->given = lane->attached = lane->paused = lane->done = lane->headers_over = lane->too_much =
        lane->barred = false;
    lane->result = CURLE_OK;
}

int http_fetch(struct http_lane *lane, const struct http_request *request,
               struct http_response *response, struct buffer *body, size_t limit, struct error *err)
{
    const void *block = NULL;
    ssize_t n;
    int r = http_begin(lane, request, response, err);

    if (r < 0)
        return r;
    while ((n = http_read(lane, &block, err)) > 0) {
        if (body->length + (size_t)n > limit) {
            n = fail_with_place(lane, -EFBIG, "its answer is too long", err);
            break;
        }
        buffer_append(body, block, (size_t)n);
    }
    http_end(lane);
    return n < 0 ? (int)n : 0;
}
