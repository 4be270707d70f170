/*
 * One blob, by the distribution specification's ways: HEAD, POST with a mount, then the upload
 * itself, in one request when it is small, in chunks when it is not. A chunk that broke is sent
 * again from where the registry says that it is.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

#include "push.h"
#include "url.h"
#include "worker.h"

enum { ANSWER_MAX = 64 * 1024 };

struct upload {
    struct push *push;
    struct http_lane *lane;
    const struct push_blob *blob;
    char *location; /* owned: where the next request goes */
    uint64_t offset;
    uint64_t base; /* of the request under way */
    int64_t told;
};

/* Nobody asked for the configuration. */
static void tell(const struct push_blob *blob, const char *step)
{
    if (blob->is_layer)
        message_item(blob->item, step, blob->size, blob->size);
}

static void note_sent(void *context, uint64_t bytes)
{
    struct upload *upload = context;

    if (upload->blob->is_layer)
        message_item_progress(&upload->told, upload->blob->item, "Pushing", upload->base + bytes,
                              upload->blob->size);
}

static int fetch(struct upload *upload, struct session_call *call, struct error *err)
{
    _cleanup_buffer_ struct buffer body = BUFFER_INIT;

    return session_fetch(&upload->push->session, upload->lane, call, &body, ANSWER_MAX, err);
}

static int is_there(struct upload *upload, bool *ret, struct error *err)
{
    _cleanup_session_call_ struct session_call call = SESSION_CALL_INIT;
    _cleanup_free_ char *url = session_url(&upload->push->session, "%s/blobs/%s",
                                           upload->push->request->repository, upload->blob->digest);

    call.request.method = "HEAD";
    call.request.url = url;
    call.missing_is_fine = true;
    call.what = "look for a layer";
    int r = fetch(upload, &call, err);
    *ret = r == 0 && call.response.status == 200;
    return r;
}

/* Relative to the registry, or a whole address of its own choice, which is not shown who we are
 * unless it is the registry's. */
static int take_location(struct upload *upload, const struct http_response *response,
                         struct error *err)
{
    const char *location = response->location;
    const char *url = upload->push->session.endpoint->given->url;

    if (text_empty(location))
        return error_set(err, -EPROTO, "%s: an upload without a location",
                         upload->push->session.registry->name);
    if (location[0] != '/' && !text_starts_with(location, "https://") &&
        !(text_starts_with(location, "http://") && text_starts_with(url, "http://")))
        return error_set(err, -EPROTO, "%s: an upload's location is '%.200s'",
                         upload->push->session.registry->name, location);
    free(upload->location);
    upload->location = location[0] == '/' ? xasprintf("%s%s", url, location) : xstrdup(location);
    return 0;
}

static bool is_elsewhere(const struct upload *upload)
{
    return !url_same_origin(upload->location, upload->push->session.endpoint->given->url);
}

static const char *mount_source(const struct push *push, const char *digest)
{
    for (size_t i = 0; i < push->request->mounts_count; i++)
        if (text_equal(push->request->mounts[i]->blob, digest))
            return push->request->mounts[i]->repository;
    return NULL;
}

/* 1: it was mounted and nothing is left to do. */
static int begin_upload(struct upload *upload, struct error *err)
{
    const char *from = mount_source(upload->push, upload->blob->digest);
    _cleanup_session_call_ struct session_call call = SESSION_CALL_INIT;
    _cleanup_free_ char *mount =
        from ? xasprintf("?mount=%s&from=%s", upload->blob->digest, from) : xstrdup("");
    _cleanup_free_ char *url = session_url(&upload->push->session, "%s/blobs/uploads/%s",
                                           upload->push->request->repository, mount);

    call.request.method = "POST";
    call.request.url = url;
    call.what = "begin an upload";
    int r = fetch(upload, &call, err);
    if (r < 0)
        return r;
    upload->offset = 0;
    if (from && call.response.status == 201) {
        _cleanup_free_ char *step = xasprintf("Mounted from %s", from);
        tell(upload->blob, step);
        return 1;
    }
    return take_location(upload, &call.response, err);
}

/* The answer to a request for the state of an upload: "0-1023"; that range is inclusive, and "0-0"
 * is also what an upload without a byte has. */
static int ask_offset(struct upload *upload, struct error *err)
{
    _cleanup_session_call_ struct session_call call = SESSION_CALL_INIT;
    unsigned long long last = 0;

    call.request.url = upload->location;
    call.bare = is_elsewhere(upload);
    call.what = "state of an upload";
    int r = fetch(upload, &call, err);
    if (r < 0)
        return r;
    if (!call.response.range || sscanf(call.response.range, "0-%llu", &last) != 1 ||
        last >= upload->blob->size)
        return error_set(err, -EPROTO, "%s: no state of the upload", call.what);
    upload->offset = last ? last + 1 : 0;
    return call.response.location ? take_location(upload, &call.response, err) : 0;
}

static int send_part(struct upload *upload, const char *method, const char *url, uint64_t length,
                     struct error *err)
{
    _cleanup_session_call_ struct session_call call = SESSION_CALL_INIT;
    _cleanup_free_ char *range = xasprintf("%llu-%llu", (unsigned long long)upload->offset,
                                           (unsigned long long)(upload->offset + length - 1));

    upload->base = upload->offset;
    call.request.method = method;
    call.request.url = url;
    call.request.content_type = "application/octet-stream";
    call.request.content_range = length && text_equal(method, "PATCH") ? range : NULL;
    call.request.body_fd = upload->blob->fd;
    call.request.body_offset = upload->offset;
    call.request.body_length = length;
    call.request.sent = note_sent;
    call.request.context = upload;
    call.once = true;
    call.bare = is_elsewhere(upload);
    call.what = "upload a layer";
    int r = fetch(upload, &call, err);
    if (r < 0)
        return r;
    upload->offset += length;
    return text_equal(method, "PATCH") ? take_location(upload, &call.response, err) : 0;
}

static int finish_upload(struct upload *upload, uint64_t length, struct error *err)
{
    _cleanup_free_ char *url =
        xasprintf("%s%cdigest=%s", upload->location, strchr(upload->location, '?') ? '&' : '?',
                  upload->blob->digest);

    return send_part(upload, "PUT", url, length, err);
}

static int send_chunks(struct upload *upload, struct error *err)
{
    unsigned failures = 0;
    uint64_t highest = 0; /* a registry that forgets what it had makes no headway */

    while (upload->offset < upload->blob->size) {
        _cleanup_error_ struct error reason = ERROR_INIT;
        uint64_t left = upload->blob->size - upload->offset;
        _cleanup_free_ char *url = xstrdup(upload->location);
        int r = send_part(upload, "PATCH", url, left < PUSH_CHUNK ? left : PUSH_CHUNK, &reason);
        if (r == 0) {
            if (upload->offset > highest)
                failures = 0;
            highest = upload->offset > highest ? upload->offset : highest;
            continue;
        }
        if (!session_is_passing(r) || ++failures >= session_attempts(&upload->push->session))
            return error_move(err, &reason);
        r = session_pause(&upload->push->session, failures, 0, err);
        if (r == 0)
            r = ask_offset(upload, err);
        if (r < 0)
            return r;
    }
    return finish_upload(upload, 0, err);
}

static int upload_once(struct upload *upload, struct error *err)
{
    int r = begin_upload(upload, err);

    if (r != 0)
        return r < 0 ? r : 0;
    r = upload->blob->size <= PUSH_CHUNK ? finish_upload(upload, upload->blob->size, err)
                                         : send_chunks(upload, err);
    if (r == 0)
        tell(upload->blob, "Pushed");
    return r;
}

static int upload_blob(struct upload *upload, struct error *err)
{
    for (unsigned i = 1;; i++) {
        _cleanup_error_ struct error reason = ERROR_INIT;
        int r = upload_once(upload, &reason);
        if (r == 0)
            return 0;
        if (!session_is_passing(r) || i >= session_attempts(&upload->push->session))
            return error_move(err, &reason);
        r = session_pause(&upload->push->session, i, 0, err);
        if (r < 0)
            return r;
    }
}

int push_blob(struct push *push, struct http_lane *lane, const struct push_blob *blob,
              struct error *err)
{
    struct upload upload = {.push = push, .lane = lane, .blob = blob};
    bool there = false;
    int r = is_there(&upload, &there, err);

    if (r == 0 && there)
        tell(blob, "Layer already exists");
    else if (r == 0)
        r = upload_blob(&upload, err);
    free(upload.location);
    return r;
}
