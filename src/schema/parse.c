/*
 * JSON text into structs, by the tables of struct json_type.
 *
 * json_parse: check limits and UTF-8 -> read_value() follows the grammar -> each value asks
 * place_value() where it belongs and is stored there -> the finished struct, or one message. A
 * struct is reachable from the root as soon as it exists, so that a failure at any point releases
 * all of it with json_free().
 */
#include <errno.h>
#include <string.h>

#include <schema/scan.h>
#include <schema/utf8.h>

#include "parser.h"

struct reader {
    struct parser *parser;
    struct json_scan scan;
};

static bool read_value(struct reader *reader);

/* A copy without the white space between tokens, so that raw JSON fits into one line. */
static char *compact_copy(const char *text, size_t length)
{
    char *copy = xmalloc(length + 1);
    size_t used = 0;
    bool in_string = false;

    for (size_t i = 0; i < length; i++) {
        char c = text[i];
        if (in_string && c == '\\') {
            copy[used++] = c;
            c = text[++i];
        } else if (c == '"') {
            in_string = !in_string;
        } else if (!in_string && (c == ' ' || c == '\t' || c == '\n' || c == '\r')) {
            continue;
        }
        copy[used++] = c;
    }
    copy[used] = '\0';
    return copy;
}

static bool store_raw(struct parser *parser, char **raw, size_t start, size_t end)
{
    if (!raw)
        return true;
    if (!parser_take(parser, end - start + 1))
        return false;
    *raw = compact_copy(parser->text + start, end - start);
    return true;
}

static size_t offset(const struct reader *reader, const char *at)
{
    return (size_t)(at - reader->parser->text);
}

/* To be called behind each token, before anybody asks where we are. */
static void arrive(struct reader *reader)
{
    reader->parser->position = offset(reader, reader->scan.at);
}

static bool fail_syntax(struct reader *reader)
{
    arrive(reader);
    return parser_fail(reader->parser, -EINVAL, reader->parser->position, "not JSON: %s",
                       reader->scan.problem);
}

static bool fail_expected(struct reader *reader, const char *what)
{
    reader->scan.problem = reader->scan.at == reader->scan.end ? "the text ends in the middle"
                           : *reader->scan.at == '/'           ? "comments are not allowed"
                                                               : what;
    return fail_syntax(reader);
}

/* ---- scalars ---- */

/* The text of a string, which is in parser->scratch if it had escapes. */
static bool take_string(struct reader *reader, struct json_token *token)
{
    struct parser *parser = reader->parser;

    if (!json_scan_string(&reader->scan, token))
        return fail_syntax(reader);
    arrive(reader);
    if (!token->escaped)
        return true;
    buffer_clear(&parser->scratch);
    struct json_problem problem;
    if (!json_unescape(token, &parser->scratch, &problem))
        return parser_fail(parser, -EINVAL, parser->position, "%s", problem.text);
    token->text = buffer_text(&parser->scratch);
    token->length = parser->scratch.length;
    return true;
}

static bool read_string(struct reader *reader)
{
    struct parser *parser = reader->parser;
    size_t start = offset(reader, reader->scan.at);
    struct json_token token;
    struct place place;

    if (!take_string(reader, &token))
        return false;
    switch (place_value(parser, VALUE_STRING, &place)) {
    case VERDICT_STORE:
        return scalar_store_string(parser, &place, token.text, token.length);
    case VERDICT_SKIP:
        return store_raw(parser, place.raw, start, parser->position);
    default:
        return false;
    }
}

static bool read_number(struct reader *reader)
{
    struct parser *parser = reader->parser;
    size_t start = offset(reader, reader->scan.at);
    struct json_token token;
    struct place place;

    if (!json_scan_number(&reader->scan, &token))
        return fail_syntax(reader);
    arrive(reader);
    switch (place_value(parser, VALUE_NUMBER, &place)) {
    case VERDICT_STORE:
        return scalar_store_number(parser, &place, token.text, token.length);
    case VERDICT_SKIP:
        return store_raw(parser, place.raw, start, parser->position);
    default:
        return false;
    }
}

static bool read_boolean(struct reader *reader, bool value)
{
    struct parser *parser = reader->parser;
    size_t start = offset(reader, reader->scan.at);
    struct place place;

    if (!json_scan_literal(&reader->scan, value ? "true" : "false"))
        return fail_syntax(reader);
    arrive(reader);
    switch (place_value(parser, VALUE_BOOLEAN, &place)) {
    case VERDICT_STORE:
        *(bool *)place.slot = value;
        return true;
    case VERDICT_SKIP:
        return store_raw(parser, place.raw, start, parser->position);
    default:
        return false;
    }
}

static bool read_null(struct reader *reader)
{
    struct parser *parser = reader->parser;
    size_t start = offset(reader, reader->scan.at);
    struct place place;

    if (!json_scan_literal(&reader->scan, "null"))
        return fail_syntax(reader);
    arrive(reader);
    if (place_value(parser, VALUE_NULL, &place) == VERDICT_SKIP)
        return store_raw(parser, place.raw, start, parser->position);
    return parser->result == 0;
}

/* ---- objects and arrays ---- */

static bool read_key(struct reader *reader)
{
    struct json_token key;

    if (json_scan_peek(&reader->scan) != '"')
        return fail_expected(reader, "a key in quotes is expected");
    if (!take_string(reader, &key) || !open_key(reader->parser, key.text, key.length))
        return false;
    json_scan_blank(&reader->scan);
    if (json_scan_peek(&reader->scan) != ':')
        return fail_expected(reader, "':' is expected behind the key");
    reader->scan.at++;
    return true;
}

/* Behind a member or an element. Whether there is another one. */
static bool read_comma(struct reader *reader, char close, bool *ret_more)
{
    json_scan_blank(&reader->scan);
    char c = json_scan_peek(&reader->scan);
    if (c != ',' && c != close)
        return fail_expected(reader,
                             close == '}' ? "',' or '}' is expected" : "',' or ']' is expected");
    reader->scan.at++;
    *ret_more = c == ',';
    return true;
}

/* All up to the bracket that closes. */
static bool read_members(struct reader *reader, char close)
{
    bool more = true;

    json_scan_blank(&reader->scan);
    if (json_scan_peek(&reader->scan) == close) {
        reader->scan.at++;
        return true;
    }
    while (more) {
        json_scan_blank(&reader->scan);
        if ((close == '}' && !read_key(reader)) || !read_value(reader) ||
            !read_comma(reader, close, &more))
            return false;
    }
    return true;
}

static bool read_end(struct reader *reader)
{
    struct parser *parser = reader->parser;
    const struct frame *frame = parser_frame(parser); /* stays readable when it is closed */

    arrive(reader);
    if ((frame->kind == FRAME_OBJECT && !close_object(parser)) ||
        (frame->kind == FRAME_ARRAY && !close_array(parser)))
        return false;
    close_frame(parser);
    return store_raw(parser, frame->raw, frame->start, parser->position);
}

static bool read_nested(struct reader *reader, bool is_object)
{
    struct parser *parser = reader->parser;
    struct place place;
    bool opened = false;

    reader->scan.at++;
    arrive(reader);
    switch (place_value(parser, is_object ? VALUE_OBJECT : VALUE_ARRAY, &place)) {
    case VERDICT_STORE:
        opened = is_object ? open_object(parser, &place) : open_array(parser, &place);
        break;
    case VERDICT_SKIP:
        opened =
            open_skipped(parser, is_object ? FRAME_SKIPPED_OBJECT : FRAME_SKIPPED_ARRAY, place.raw);
        break;
    default:
        break;
    }
    return opened && read_members(reader, is_object ? '}' : ']') && read_end(reader);
}

static bool read_value(struct reader *reader)
{
    json_scan_blank(&reader->scan);
    switch (json_scan_peek(&reader->scan)) {
    case '"':
        return read_string(reader);
    case '{':
        return read_nested(reader, true);
    case '[':
        return read_nested(reader, false);
    case 't':
        return read_boolean(reader, true);
    case 'f':
        return read_boolean(reader, false);
    case 'n':
        return read_null(reader);
    case '-':
    case '0' ... '9':
        return read_number(reader);
    default:
        return fail_expected(reader, "a value is expected");
    }
}

static bool check_text(struct parser *parser)
{
    if (parser->length > JSON_DOCUMENT_MAX)
        return parser_fail(parser, -EFBIG, 0, "the document is larger than %d MiB",
                           JSON_DOCUMENT_MAX / 1024 / 1024);
    size_t valid = utf8_check(parser->text, parser->length);
    if (valid < parser->length)
        return parser_fail(parser, -EINVAL, valid, "byte 0x%02x is not UTF-8",
                           (unsigned char)parser->text[valid]);
    size_t blank = 0;
    while (blank < parser->length && memchr(" \t\r\n", parser->text[blank], 4))
        blank++;
    if (blank == parser->length)
        return parser_fail(parser, -EINVAL, 0, "the document is empty");
    return true;
}

static bool read_document(struct reader *reader)
{
    if (!read_value(reader))
        return false;
    json_scan_blank(&reader->scan);
    return reader->scan.at == reader->scan.end ||
           fail_expected(reader, "something follows the document");
}

int json_parse(const struct json_type *type, const char *text, size_t length, const char *source,
               void **ret, struct error *err)
{
    struct parser parser _uninitialized_;
    struct reader reader = {.parser = &parser, .scan = {.at = text, .end = text + length}};

    memset(&parser, 0, offsetof(struct parser, frames)); /* each frame is set when it opens */
    parser.source = source;
    parser.text = text;
    parser.length = length;
    parser.err = err;
    parser.type = type;
    if (check_text(&parser) && read_document(&reader))
        *ret = parser.root;
    else
        json_free(type, parser.root);
    key_set_finish(&parser.keys);
    buffer_finish(&parser.scratch);
    return parser.result;
}
