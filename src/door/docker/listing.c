/*
 *     listing_write()   is it the one that was known?
 *     write_array()     if it is another list: its containers
 *     write_one()       is this one known, word for word?
 *     translate()       if not: read, and written as docker has it
 *     keep()            for the next list
 *     keep_whole()      the same of the whole list
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
    BEGINNING = 80,   /* bytes: {"id":"..." */
    EDITION_MAX = 64, /* bytes */
    DEPTH_MAX = 32,
};

struct listing_entry {
    size_t text_length, line_length;
    char data[]; /* the text, then the line */
};

struct listing_whole {
    unsigned references;
    char edition[EDITION_MAX + 1];
    struct buffer text; /* docker's array */
};

struct listing_whole *listing_hold(struct listing *listing)
{
    if (listing->last)
        listing->last->references++;
    return listing->last;
}

void listing_release(struct listing_whole *whole)
{
    if (!whole || --whole->references)
        return;
    buffer_finish(&whole->text);
    free(whole);
}

char *listing_edition(const struct listing_whole *whole)
{
    return whole ? (char *)(uintptr_t)whole->edition : (char *)(uintptr_t) "";
}

static void keep_whole(struct listing *listing, const struct json_token *edition, const char *text,
                       size_t length)
{
    listing_release(steal_ptr(listing->last));
    if (!edition->length || edition->length > EDITION_MAX || length > LISTING_BYTES_MAX)
        return;
    struct listing_whole *whole = xnew(struct listing_whole);
    whole->references = 1;
    memcpy(whole->edition, edition->text, edition->length);
    buffer_append(&whole->text, text, length);
    listing->last = whole;
}

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

static int write_array(struct listing *listing, struct json_scan *scan, struct buffer *out,
                       struct error *err)
{
    int r = 0;

    if (!listing->slots)
        listing->slots = xnew_array(struct listing_entry *, LISTING_SLOTS);
    buffer_reserve(out, (size_t)(scan->end - scan->at) * 5 / 4);
    buffer_append_char(out, '[');
    for (scan->at++; r == 0 && json_scan_peek(scan) != ']'; json_scan_blank(scan)) {
        if (json_scan_peek(scan) == ',') {
            buffer_append_char(out, ',');
            scan->at++;
        }
        json_scan_blank(scan);
        r = write_one(listing, scan, out, err);
    }
    buffer_append_char(out, ']');
    return r;
}

/* At the value of the next member, if there is one. */
static bool scan_member(struct json_scan *scan, struct json_token *ret_key)
{
    json_scan_blank(scan);
    if (json_scan_peek(scan) != '{' && json_scan_peek(scan) != ',')
        return false;
    scan->at++;
    json_scan_blank(scan);
    if (json_scan_peek(scan) != '"' || !json_scan_string(scan, ret_key))
        return false;
    json_scan_blank(scan);
    if (json_scan_peek(scan) != ':')
        return false;
    scan->at++;
    json_scan_blank(scan);
    return true;
}

static bool is_named(const struct json_token *key, const char *name)
{
    return key->length == strlen(name) && memcmp(key->text, name, key->length) == 0;
}

/* What stands before the containers; empty: it does not. */
struct beginning {
    struct json_token edition, unchanged;
};

/* At the array of containers, which is the last member. */
static int read_beginning(struct json_scan *scan, struct beginning *ret, struct error *err)
{
    struct json_token key, value;

    *ret = (struct beginning){0};
    while (scan_member(scan, &key) && !is_named(&key, "containers")) {
        if (!json_scan_skip(scan, DEPTH_MAX, &value))
            return error_set(err, -EPROTO, "the daemon's list of containers: %s", scan->problem);
        if (is_named(&key, "edition") && value.length > 2)
            ret->edition = (struct json_token){.text = value.text + 1, .length = value.length - 2};
        else if (is_named(&key, "unchanged"))
            ret->unchanged = value;
    }
    if (json_scan_peek(scan) != '[')
        return error_set(err, -EPROTO, "the daemon's list of containers is not one");
    return 0;
}

int listing_write(struct listing *listing, const struct listing_whole *known, const char *text,
                  size_t length, struct buffer *out, struct error *err)
{
    struct json_scan scan = {.at = text, .end = text + length};
    struct beginning beginning;
    size_t start = out->length;

    int r = read_beginning(&scan, &beginning, err);
    if (r < 0)
        return r;
    if (is_named(&beginning.unchanged, "true")) {
        if (!known || !is_named(&beginning.edition, known->edition))
            return error_set(err, -EPROTO, "the daemon's list of containers is another one's");
        buffer_append(out, known->text.data, known->text.length);
        return 0;
    }
    r = write_array(listing, &scan, out, err);
    if (r == 0 && beginning.edition.length)
        keep_whole(listing, &beginning.edition, out->data + start, out->length - start);
    return r;
}

void listing_finish(struct listing *listing)
{
    for (size_t i = 0; listing->slots && i < LISTING_SLOTS; i++)
        free(listing->slots[i]);
    free(listing->slots);
    listing_release(listing->last);
    *listing = (struct listing){0};
}
