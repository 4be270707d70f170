/*
 * A file from an HTTP server: ADD of an address, a build's context, an archive to import. Whatever
 * the server sends is written as it comes, and nothing of it is looked at here.
 */
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>
#include <image/descriptors.h>

#include "filename.h"
#include "http.h"
#include "requests.h"
#include "trust.h"
#include "worker.h"

enum { PATIENCE = 60 }; /* seconds of silence */

struct fetch {
    const struct image_worker_fetch *request;
    struct http_lane *lane;
    EVP_MD_CTX *hash;
    int fd;
    uint64_t bytes;
    time_t begun;
};

static time_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec;
}

static int take_block(struct fetch *fetch, const void *block, size_t length, struct error *err)
{
    fetch->bytes += length;
    if (fetch->bytes > FETCH_BYTES_MAX)
        return error_set(err, -EFBIG, "%s is larger than %llu GiB (FETCH_BYTES_MAX)",
                         fetch->request->url, FETCH_BYTES_MAX >> 30);
    if (now() - fetch->begun > FETCH_SECONDS_MAX)
        return error_set(err, -ETIMEDOUT, "%s: not here after %d hours (FETCH_SECONDS_MAX)",
                         fetch->request->url, FETCH_SECONDS_MAX / 3600);
    EVP_DigestUpdate(fetch->hash, block, length);
    int r = file_write_all(fetch->fd, block, length);
    if (r < 0)
        return error_errno(err, -r, "write what is fetched");
    message_progress("Downloading", fetch->bytes);
    return 0;
}

static int take_body(struct fetch *fetch, struct error *err)
{
    const void *block = NULL;
    ssize_t n;
    int r = 0;

    while (r == 0 && (n = http_read(fetch->lane, &block, err)) != 0)
        r = n < 0 ? (int)n : take_block(fetch, block, (size_t)n, err);
    return r;
}

/* Without a time it is that of 1970, so that it never depends on when it was fetched. */
static int set_time(const struct fetch *fetch, const struct http_response *response,
                    struct error *err)
{
    time_t said = response->last_modified ? curl_getdate(response->last_modified, NULL) : 0;
    const struct timespec time = {.tv_sec = said > 0 ? said : 0};
    const struct timespec times[2] = {time, time};

    return futimens(fetch->fd, times) < 0 ? error_errno(err, errno, "set its time") : 0;
}

/* Owned; NULL: the address has none, or one that cannot be decoded. */
static char *path_of(const char *url)
{
    CURLU *parts = curl_url();
    char *path = NULL, *copy = NULL;

    if (parts && curl_url_set(parts, CURLUPART_URL, url, 0) == CURLUE_OK &&
        curl_url_get(parts, CURLUPART_PATH, &path, CURLU_URLDECODE) == CURLUE_OK)
        copy = xstrdup(path);
    curl_free(path);
    curl_url_cleanup(parts);
    return copy;
}

static int make_file(struct fetch *fetch, struct error *err)
{
    const char *name = fetch->request->file;

    if (text_empty(name) || strchr(name, '/') || text_equal(name, ".") || text_equal(name, ".."))
        return error_set(err, -EINVAL, "'%s' is no name for a file", name);
    fetch->fd =
        openat(IMAGE_FD_STAGING, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fetch->fd < 0)
        return error_errno(err, errno, "create %s in staging", name);
    return fchmod(fetch->fd, 0600) < 0 ? error_errno(err, errno, "set the mode of %s", name) : 0;
}

static void report(const struct fetch *fetch, const struct http_response *response,
                   struct image_worker_fetched *fetched)
{
    _cleanup_free_ char *path = path_of(fetch->request->url);
    unsigned char hash[EVP_MAX_MD_SIZE];
    char digest[72] = "sha256:";

    EVP_DigestFinal_ex(fetch->hash, hash, NULL);
    text_hex(hash, 32, digest + 7);
    fetched->url = xstrdup(fetch->request->url);
    fetched->file = xstrdup(fetch->request->file);
    fetched->name = filename_choose(path, response->disposition);
    fetched->digest = xstrdup(digest);
    fetched->size = fetch->bytes;
}

static int fetch_file(struct fetch *fetch, struct image_worker_fetched *fetched, struct error *err)
{
    _cleanup_http_response_ struct http_response response = {0};
    struct http_request request = HTTP_REQUEST_INIT;

    request.url = fetch->request->url;
    int r = http_begin(fetch->lane, &request, &response, err);
    if (r < 0)
        return r;
    if (response.status != 200)
        r = error_set(err, response.status == 404 ? -ENOENT : -EPROTO,
                      "failed to GET %s with status %d", request.url, response.status);
    if (r == 0)
        r = make_file(fetch, err);
    if (r == 0)
        r = take_body(fetch, err);
    if (r == 0)
        r = set_time(fetch, &response, err);
    if (r == 0)
        report(fetch, &response, fetched);
    http_end(fetch->lane);
    return r;
}

/* Also of http://, which may lead on to https://. */
static int read_trust(struct http_trust *trust, struct error *err)
{
    const struct image_worker_endpoint machine = {.url = (char *)"https://"};

    return trust_read(&machine, trust, err);
}

int registry_fetch(const struct image_worker_fetch *request, struct image_worker_result **ret,
                   struct error *err)
{
    const struct jail jail = {.has_network = true, .has_staging = true};
    _cleanup_image_worker_result_ struct image_worker_result *result =
        xnew(struct image_worker_result);
    struct fetch fetch = {.request = request, .fd = -1, .begun = now()};
    struct http_trust trust = {0};
    const struct http_settings settings = {
        .home = request->url,
        .trust = &trust,
        .proxy = request->proxy,
        .patience = request->has_patience_seconds ? request->patience_seconds : PATIENCE,
    };
    int r = read_trust(&trust, err);

    if (r == 0)
        r = jail_enter(&jail, err);
    if (r == 0 && !text_starts_with(request->url, "http://") &&
        !text_starts_with(request->url, "https://"))
        r = error_set(err, -EINVAL, "'%.200s' is no address of http or https", request->url);
    if (r == 0) {
        result->fetched = xnew(struct image_worker_fetched);
        fetch.lane = http_lane_create(&settings);
        fetch.hash = EVP_MD_CTX_new();
        EVP_DigestInit_ex(fetch.hash, EVP_sha256(), NULL);
        r = fetch_file(&fetch, result->fetched, err);
        EVP_MD_CTX_free(fetch.hash);
        http_lane_destroy(fetch.lane);
    }
    close_fd(fetch.fd);
    trust_finish(&trust);
    if (r == 0)
        *ret = steal_ptr(result);
    return r;
}
