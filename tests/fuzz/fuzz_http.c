/*
 * libFuzzer target: what clients of the Docker Engine API send, up to their documents. The input is
 * a stream of bytes, read whole and, a second time, in pieces whose lengths its first byte says:
 * both readings must come to the same requests and bodies.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/text.h>
#include <schema/docker.h>

#include "base64.h"
#include "body.h"
#include "filters.h"
#include "head.h"
#include "target.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
static void read_auth(const struct head *head);

/* ---- one reading ---- */

struct reading {
    struct buffer in;
    struct buffer told; /* requests and bodies, as they were understood */
    struct head head;
    struct body body;
    bool in_body, broken;
};

static void look_at_target(struct reading *reading)
{
    struct target target;
    struct filters filters;

    if (!target_parse(reading->head.target, &target)) {
        buffer_append_text(&reading->told, "?");
        return;
    }
    buffer_printf(&reading->told, "%u.%u %s", target.major, target.minor, target.path);
    for (size_t i = 0; target.keys && target.keys[i]; i++)
        buffer_printf(&reading->told, "&%s=%s", target.keys[i], target.values[i]);
    if (filters_parse(target_text(&target, "filters"), &filters, NULL) == 0)
        filters_finish(&filters);
    target_finish(&target);
}

static void read_head(struct reading *reading)
{
    size_t length = head_length(buffer_text(&reading->in), reading->in.length);
    const char *problem;

    if (!length || length > HEAD_MAX) {
        reading->broken = length || reading->in.length > HEAD_MAX;
        return;
    }
    if (length > reading->in.length)
        abort();
    unsigned status = head_parse(reading->in.data, length, &reading->head, &problem);
    buffer_consume(&reading->in, length);
    if (status) {
        if (status < 400 || status > 599 || !problem)
            abort();
        buffer_printf(&reading->told, "!%u", status);
        reading->broken = true;
        return;
    }
    if (reading->head.target[0] != '/' || (reading->head.chunked && reading->head.length >= 0))
        abort();
    look_at_target(reading);
    read_auth(&reading->head);
    body_begin(&reading->body, &reading->head);
    reading->in_body = true;
}

static void read_body(struct reading *reading)
{
    size_t used = 0, read = 1, length;
    const char *piece;

    while (read) {
        read = body_read(&reading->body, buffer_text(&reading->in) + used,
                         reading->in.length - used, 1000, &piece, &length);
        if (read > reading->in.length - used || length > read)
            abort();
        if (length)
            buffer_append(&reading->told, piece, length);
        used += read;
    }
    buffer_consume(&reading->in, used);
    if (reading->body.state == BODY_BROKEN)
        reading->broken = true;
    if (reading->body.state == BODY_BROKEN || reading->body.state == BODY_DONE) {
        buffer_append_text(&reading->told, reading->broken ? "!" : ".");
        head_finish(&reading->head);
        reading->in_body = false;
    }
}

static void feed(struct reading *reading, const uint8_t *data, size_t size)
{
    size_t before;

    buffer_append(&reading->in, data, size);
    do {
        before = reading->in.length;
        if (!reading->broken && !reading->in_body)
            read_head(reading);
        if (!reading->broken && reading->in_body)
            read_body(reading);
    } while (!reading->broken && reading->in.length && reading->in.length != before);
}

static void finish(struct reading *reading)
{
    head_finish(&reading->head);
    buffer_finish(&reading->in);
    buffer_finish(&reading->told);
}

/* ---- documents ---- */

static void read_document(const char *text, size_t length)
{
    static const struct json_type *const types[] = {
        &docker_container_config_type,  &docker_exec_config_type,
        &docker_exec_start_config_type, &docker_network_create_type,
        &docker_network_connect_type,   &docker_network_disconnect_type,
        &docker_volume_create_type,     &docker_auth_config_type,
    };
    void *document;

    for (size_t i = 0; i < ARRAY_SIZE(types); i++)
        if (json_parse(types[i], text, length, NULL, &document, NULL) == 0)
            json_free(types[i], document);
}

/* What stands in X-Registry-Auth is read from its Base64; the same comes back of what was written.
 */
static void read_auth(const struct head *head)
{
    const char *header = head_field(head, "X-Registry-Auth");
    size_t length, again;

    char *text = header ? base64_decode(header, &length) : NULL;
    if (!text)
        return;
    char *encoded = base64_encode(text, length);
    char *same = base64_decode(encoded, &again);
    if (!same || again != length || memcmp(same, text, length) != 0)
        abort();
    read_document(text, length);
    free(text);
    free(encoded);
    free(same);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct reading whole = {.broken = false}, pieces = {.broken = false};

    if (!size)
        return 0;
    size_t piece = (size_t)data[0] + 1;
    feed(&whole, data + 1, size - 1);
    for (size_t at = 1; at < size && !pieces.broken; at += piece)
        feed(&pieces, data + at, size - at < piece ? size - at : piece);
    if (whole.told.length != pieces.told.length ||
        (whole.told.length && memcmp(whole.told.data, pieces.told.data, whole.told.length) != 0))
        abort();
    finish(&whole);
    finish(&pieces);
    read_document((const char *)data + 1, size - 1);
    return 0;
}
