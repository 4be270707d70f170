/*
 *     listing_write()   the array of containers in the text
 *     write_one()       is this one known, word for word?
 *     translate()       if not: read, and written as docker has it
 *     keep()            for the next list
 */
#include "listing.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <schema/json.h>
#include <schema/management.h>
#include <schema/scan.h>

#include "handlers.h"

enum {
    BEGINNING = 80, /* bytes: {"id":"..." */
    DEPTH_MAX = 32,
};

struct listing_entry {
    size_t text_length, line_length;
    char data[]; /* the text, then the line */
};

static size_t slot_of(const char *text, size_t length)
{
    uint64_t hash = 14695981039346656037ULL; /* FNV-1a */

    for (size_t i = 0; i < length && i < BEGINNING; i++)
        hash = (hash ^ (unsigned char)text[i]) * 1099511628211ULL;
    return (size_t)(hash ^ hash >> 32) % LISTING_SLOTS;
}

static size_t size_of(const struct listing_entry *entry)
{
    return sizeof(*entry) + entry->text_length + entry->line_length;
}

static void drop(struct listing *listing, size_t slot)
{
    if (listing->slots[slot])
        listing->bytes -= size_of(listing->slots[slot]);
    free(listing->slots[slot]);
    listing->slots[slot] = NULL;
}

static void keep(struct listing *listing, size_t slot, struct json_token text, const char *line,
                 size_t line_length)
{
    size_t size = sizeof(struct listing_entry) + text.length + line_length;

    drop(listing, slot);
    if (listing->bytes + size > LISTING_BYTES_MAX)
        return;
    struct listing_entry *entry = xmalloc(size);
    *entry = (struct listing_entry){.text_length = text.length, .line_length = line_length};
    memcpy(entry->data, text.text, text.length);
    memcpy(entry->data + text.length, line, line_length);
    listing->slots[slot] = entry;
    listing->bytes += size;
}

static int translate(struct json_token text, struct buffer *out, struct error *err)
{
    _cleanup_api_container_summary_ struct api_container_summary *summary = NULL;
    struct json_writer writer;

    int r = api_container_summary_parse(text.text, text.length, NULL, &summary, err);
    if (r < 0)
        return r;
    json_writer_init(&writer, out, JSON_COMPACT);
    docker_write_summary(&writer, summary);
    return 0;
}

/* What begins with a whole object begins with nothing longer. */
static bool is_known(const struct listing_entry *known, const struct json_scan *scan)
{
    return known && known->text_length <= (size_t)(scan->end - scan->at) &&
           memcmp(known->data, scan->at, known->text_length) == 0;
}

static int write_one(struct listing *listing, struct json_scan *scan, struct buffer *out,
                     struct error *err)
{
    size_t slot = slot_of(scan->at, (size_t)(scan->end - scan->at)), start = out->length;
    const struct listing_entry *known = listing->slots[slot];
    struct json_token text;

    if (is_known(known, scan)) {
        buffer_append(out, known->data + known->text_length, known->line_length);
        scan->at += known->text_length;
        return 0;
    }
    if (!json_scan_skip(scan, DEPTH_MAX, &text))
        return error_set(err, -EPROTO, "the daemon's list of containers: %s", scan->problem);
    int r = translate(text, out, err);
    if (r == 0)
        keep(listing, slot, text, out->data + start, out->length - start);
    return r;
}

/* At what is between { and the array's [: there is one member. */
static bool scan_begin(struct json_scan *scan)
{
    struct json_token key;

    if (json_scan_peek(scan) != '{')
        return false;
    scan->at++;
    json_scan_blank(scan);
    if (json_scan_peek(scan) != '"' || !json_scan_string(scan, &key))
        return false;
    json_scan_blank(scan);
    if (json_scan_peek(scan) != ':')
        return false;
    scan->at++;
    json_scan_blank(scan);
    return json_scan_peek(scan) == '[';
}

int listing_write(struct listing *listing, const char *text, size_t length, struct buffer *out,
                  struct error *err)
{
    struct json_scan scan = {.at = text, .end = text + length};
    int r = 0;

    if (!listing->slots)
        listing->slots = xnew_array(struct listing_entry *, LISTING_SLOTS);
    if (!scan_begin(&scan))
        return error_set(err, -EPROTO, "the daemon's list of containers is not one");
    buffer_reserve(out, length + length / 4);
    buffer_append_char(out, '[');
    for (scan.at++; r == 0 && json_scan_peek(&scan) != ']'; json_scan_blank(&scan)) {
        if (json_scan_peek(&scan) == ',') {
            buffer_append_char(out, ',');
            scan.at++;
        }
        json_scan_blank(&scan);
        r = write_one(listing, &scan, out, err);
    }
    buffer_append_char(out, ']');
    return r;
}

void listing_finish(struct listing *listing)
{
    for (size_t i = 0; listing->slots && i < LISTING_SLOTS; i++)
        free(listing->slots[i]);
    free(listing->slots);
    *listing = (struct listing){0};
}
