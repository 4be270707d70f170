/*
 * CBOR into structs, by the same tables and with the same rules as JSON text (parse.c).
 */
#include <errno.h>
#include <string.h>

#include <schema/cbor.h>
#include <schema/utf8.h>

#include "cbor_float.h"
#include "next_key.h"
#include "parser.h"

struct reader {
    struct parser *parser;
    struct cbor_scan scan;
};

static bool read_item(struct reader *reader);

static void arrive(struct reader *reader)
{
    reader->parser->position = (size_t)((const char *)reader->scan.at - reader->parser->text);
}

static bool fail_syntax(struct reader *reader)
{
    arrive(reader);
    return parser_fail(reader->parser, -EINVAL, reader->parser->position, "not CBOR: byte %zu: %s",
                       reader->parser->position, reader->scan.problem);
}

static bool fail(struct reader *reader, const char *problem)
{
    reader->scan.problem = problem;
    return fail_syntax(reader);
}

static bool read_long_head(struct reader *reader, struct cbor_item *ret)
{
    if (!cbor_scan_head(&reader->scan, ret))
        return fail_syntax(reader);
    arrive(reader);
    return true;
}

/* Nearly every head is a byte, or two; all others, and what is wrong, are read_long_head()'s. */
static inline bool read_head(struct reader *reader, struct cbor_item *ret)
{
    const unsigned char *at = reader->scan.at;

    if (reader->scan.end - at < 2 || *at >= CBOR_TAG << 5 || (*at & 0x1f) > 24)
        return read_long_head(reader, ret);
    uint8_t info = *at & 0x1f;
    *ret = (struct cbor_item){.major = *at >> 5, .info = info, .value = info < 24 ? info : at[1]};
    reader->scan.at = at + 1 + (info == 24);
    arrive(reader);
    return true;
}

static bool at_break(struct reader *reader)
{
    if (reader->scan.at == reader->scan.end || *reader->scan.at != CBOR_BREAK)
        return false;
    reader->scan.at++;
    arrive(reader);
    return true;
}

/* ---- text ---- */

static inline bool check_text(struct reader *reader, const char *text, size_t length)
{
    if (utf8_is_plain(text, length))
        return true;
    if (utf8_check(text, length) < length)
        return fail(reader, "a text is not UTF-8");
    return !memchr(text, '\0', length) || fail(reader, "a text must not contain NUL");
}

static inline bool take_bytes(struct reader *reader, uint64_t length, const char **ret)
{
    if (length > (size_t)(reader->scan.end - reader->scan.at))
        return fail(reader, "the data ends in the middle");
    *ret = (const char *)reader->scan.at;
    reader->scan.at += length;
    arrive(reader);
    return check_text(reader, *ret, (size_t)length);
}

/* A text of indefinite length comes in pieces, each one UTF-8 for itself. */
static bool join_pieces(struct reader *reader)
{
    struct cbor_item piece;
    const char *text = NULL;

    buffer_clear(&reader->parser->scratch);
    while (!at_break(reader)) {
        if (!read_head(reader, &piece))
            return false;
        if (piece.major != CBOR_TEXT || piece.info == 31)
            return fail(reader, "a piece of another kind in a text");
        if (!take_bytes(reader, piece.value, &text))
            return false;
        buffer_append(&reader->parser->scratch, text, (size_t)piece.value);
    }
    return true;
}

static bool take_text(struct reader *reader, const struct cbor_item *item, const char **ret,
                      size_t *ret_length)
{
    if (item->info != 31) {
        *ret_length = (size_t)item->value;
        return take_bytes(reader, item->value, ret);
    }
    if (!join_pieces(reader))
        return false;
    *ret = buffer_text(&reader->parser->scratch);
    *ret_length = reader->parser->scratch.length;
    return true;
}

/* ---- values ---- */

static bool read_text(struct reader *reader, const struct cbor_item *item,
                      const struct place *place)
{
    const char *text = NULL;
    size_t length;

    return take_text(reader, item, &text, &length) &&
           scalar_store_string(reader->parser, place, text, length);
}

static inline bool read_number(struct reader *reader, const struct cbor_item *item,
                               const struct place *place)
{
    bool negative = item->major == CBOR_NEGATIVE;

    if (item->major == CBOR_SIMPLE)
        return scalar_store_double(reader->parser, place, cbor_item_double(item));
    if (negative && item->value == UINT64_MAX)
        return fail(reader, "a number below -2^64+1");
    return scalar_store_integer(reader->parser, place, negative, item->value + negative);
}

/* Whether the key is the one that nearly always comes next: such a one is known to be proper text.
 */
static inline bool is_next_key(struct reader *reader, const struct cbor_item *item)
{
    if (item->info == 31 || item->value > (size_t)(reader->scan.end - reader->scan.at) ||
        !open_next_key(reader->parser, (const char *)reader->scan.at, (size_t)item->value))
        return false;
    reader->scan.at += item->value;
    arrive(reader);
    return true;
}

static bool read_key(struct reader *reader)
{
    struct cbor_item item _uninitialized_;
    const char *text = NULL;
    size_t length;

    if (!read_head(reader, &item))
        return false;
    if (item.major != CBOR_TEXT)
        return fail(reader, "the key of a map is no text");
    if (is_next_key(reader, &item))
        return true;
    return take_text(reader, &item, &text, &length) && open_key(reader->parser, text, length);
}

static bool read_nested(struct reader *reader, const struct cbor_item *item,
                        const struct place *place)
{
    struct parser *parser = reader->parser;
    bool is_map = item->major == CBOR_MAP;

    if (!(is_map ? open_object(parser, place) : open_array(parser, place)))
        return false;
    for (uint64_t i = 0; item->info == 31 || i < item->value; i++) {
        if (item->info == 31 && at_break(reader))
            break;
        if ((is_map && !read_key(reader)) || !read_item(reader))
            return false;
    }
    const struct frame *frame = parser_frame(parser);
    if ((frame->kind == FRAME_OBJECT && !close_object(parser)) ||
        (frame->kind == FRAME_ARRAY && !close_array(parser)))
        return false;
    close_frame(parser);
    return true;
}

/* -1: has no counterpart in JSON. */
static int value_of(const struct cbor_item *item)
{
    switch (item->major) {
    case CBOR_UNSIGNED:
    case CBOR_NEGATIVE:
        return VALUE_NUMBER;
    case CBOR_TEXT:
        return VALUE_STRING;
    case CBOR_ARRAY:
        return VALUE_ARRAY;
    case CBOR_MAP:
        return VALUE_OBJECT;
    case CBOR_SIMPLE:
        return item->info == 20 || item->info == 21   ? VALUE_BOOLEAN
               : item->info == 22                     ? VALUE_NULL
               : item->info >= 25 && item->info <= 27 ? VALUE_NUMBER
                                                      : -1;
    default:
        return -1;
    }
}

/* What is not looked into: its text, as JSON, if anybody wants it. start: of the item. */
static bool read_skipped(struct reader *reader, const unsigned char *start, char **raw)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    _cleanup_error_ struct error problem = ERROR_INIT;
    struct parser *parser = reader->parser;

    reader->scan.at = start;
    if (!cbor_scan_skip(&reader->scan, JSON_DEPTH_MAX - parser->depth))
        return fail_syntax(reader);
    arrive(reader);
    if (!raw)
        return true;
    if (cbor_to_json(start, (size_t)(reader->scan.at - start), &text, &problem) < 0)
        return parser_fail(parser, -EINVAL, parser->position, "%s", error_message(&problem));
    if (!parser_take(parser, text.length + 1))
        return false;
    *raw = buffer_steal(&text);
    return true;
}

static bool store_item(struct reader *reader, const struct cbor_item *item,
                       const struct place *place)
{
    switch (value_of(item)) {
    case VALUE_STRING:
        return read_text(reader, item, place);
    case VALUE_NUMBER:
        return read_number(reader, item, place);
    case VALUE_BOOLEAN:
        *(bool *)place->slot = item->info == 21;
        return true;
    default:
        return read_nested(reader, item, place);
    }
}

static bool read_item(struct reader *reader)
{
    const unsigned char *start = reader->scan.at;
    struct parser *parser = reader->parser;
    struct cbor_item item _uninitialized_;
    struct place place _uninitialized_;

    if (!read_head(reader, &item))
        return false;
    int value = value_of(&item);
    if (value < 0)
        return fail(reader, "a value that JSON does not have");
    switch (place_value(parser, (enum json_value)value, &place)) {
    case VERDICT_STORE:
        return store_item(reader, &item, &place);
    case VERDICT_SKIP:
        return read_skipped(reader, start, place.raw);
    case VERDICT_DONE:
        return true;
    default:
        return false;
    }
}

int cbor_parse(const struct json_type *type, const void *data, size_t length, void **ret,
               struct error *err)
{
    struct parser parser _uninitialized_;
    struct reader reader = {.parser = &parser, .scan = {.at = data, .end = data}};

    reader.scan.end += length;
    memset(&parser, 0, offsetof(struct parser, frames)); /* each frame is set when it opens */
    parser.text = data;
    parser.length = length;
    parser.err = err;
    parser.type = type;
    if (length > JSON_DOCUMENT_MAX)
        parser_fail(&parser, -EFBIG, 0, "the document is larger than %d MiB",
                    JSON_DOCUMENT_MAX / 1024 / 1024);
    else if (read_item(&reader) && reader.scan.at != reader.scan.end)
        fail(&reader, "something follows the document");
    if (parser.result == 0)
        *ret = parser.root;
    else
        json_free(type, parser.root);
    key_set_finish(&parser.keys);
    buffer_finish(&parser.scratch);
    return parser.result;
}
