/*
 * The reader: yajl's events, driven into structs by the tables of struct json_type.
 *
 * json_parse: check limits and UTF-8 -> yajl over the whole text, whose events arrive in the on_*
 * functions -> each value asks place_value() where it belongs and is stored there -> the finished
 * struct, or one message. A struct is reachable from the root as soon as it exists, so that a
 * failure at any point releases all of it with json_free().
 */
#include <errno.h>
#include <string.h>
#include <yajl/yajl_parse.h>

#include "parser.h"
#include "utf8.h"

size_t parser_position(const struct parser *parser)
{
    return parser->at_end ? parser->length : yajl_get_bytes_consumed(parser->yajl);
}

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

static int on_null(void *ctx)
{
    struct parser *parser = ctx;
    struct place place;
    size_t end = parser_position(parser);

    if (place_value(parser, VALUE_NULL, &place) == VERDICT_SKIP)
        return store_raw(parser, place.raw, end - strlen("null"), end);
    return parser->result == 0;
}

static int on_boolean(void *ctx, int value)
{
    struct parser *parser = ctx;
    struct place place;
    size_t end = parser_position(parser);

    switch (place_value(parser, VALUE_BOOLEAN, &place)) {
    case VERDICT_STORE:
        *(bool *)place.slot = value;
        return true;
    case VERDICT_SKIP:
        return store_raw(parser, place.raw, end - (value ? strlen("true") : strlen("false")), end);
    default:
        return false;
    }
}

static int on_number(void *ctx, const char *text, size_t length)
{
    struct parser *parser = ctx;
    struct place place;
    size_t end = parser_position(parser);

    switch (place_value(parser, VALUE_NUMBER, &place)) {
    case VERDICT_STORE:
        return scalar_store_number(parser, &place, text, length);
    case VERDICT_SKIP:
        return store_raw(parser, place.raw, end - length, end);
    default:
        return false;
    }
}

/* Where the string token begins that ends, with its quote, at end. Inside of it a quote follows an
 * odd number of backslashes; the opening one follows none. */
static size_t string_start(const struct parser *parser, size_t end)
{
    const char *text = parser->text;
    size_t start = end - 1;

    for (;;) {
        do
            start--;
        while (text[start] != '"');
        size_t backslashes = 0;
        while (backslashes < start && text[start - backslashes - 1] == '\\')
            backslashes++;
        if (backslashes % 2 == 0)
            return start;
    }
}

/* Finds the token and checks it. yajl gives a pointer into the document unless it had to decode
 * escapes. */
static bool check_string(struct parser *parser, const char *text, size_t length, size_t *ret_start,
                         size_t *ret_end)
{
    *ret_end = parser_position(parser);
    if (text >= parser->text && text < parser->text + parser->length) {
        *ret_start = *ret_end - length - 2;
        return true;
    }
    *ret_start = string_start(parser, *ret_end);
    return scalar_check_escapes(parser, text, length, *ret_start, *ret_end);
}

static int on_string(void *ctx, const unsigned char *value, size_t length)
{
    struct parser *parser = ctx;
    const char *text = (const char *)value;
    struct place place;
    size_t start, end;

    enum verdict verdict = place_value(parser, VALUE_STRING, &place);
    if (verdict == VERDICT_FAIL || !check_string(parser, text, length, &start, &end))
        return false;
    return verdict == VERDICT_STORE ? scalar_store_string(parser, &place, text, length)
                                    : store_raw(parser, place.raw, start, end);
}

static struct frame *push_frame(struct parser *parser, enum frame_kind kind)
{
    if (parser->depth == JSON_DEPTH_MAX) {
        parser_fail(parser, -EFBIG, parser_position(parser), "nested deeper than %d levels",
                    JSON_DEPTH_MAX);
        return NULL;
    }
    struct frame *frame = &parser->frames[parser->depth++];
    *frame = (struct frame){
        .kind = kind,
        .start = parser_position(parser) - 1,
        .keys = parser->keys.count,
    };
    return frame;
}

static bool push_skipped(struct parser *parser, enum frame_kind kind, char **raw)
{
    struct frame *frame = push_frame(parser, kind);

    if (frame)
        frame->raw = raw;
    return frame;
}

static void *create_struct(struct parser *parser, const struct place *place,
                           const struct json_type *type)
{
    if (!parser_take(parser, type->size))
        return NULL;
    return *(void **)place->slot = xcalloc(1, type->size);
}

static const struct json_type *placed_type(const struct parser *parser, const struct place *place)
{
    return parser->depth == 0 ? parser->type : place->field->type;
}

static bool begin_object(struct parser *parser, const struct place *place)
{
    const struct json_type *type = placed_type(parser, place);
    bool is_map = type->shape == JSON_SHAPE_MAP;
    char *value = create_struct(parser, place, type);
    if (!value)
        return false;
    struct frame *frame = push_frame(parser, is_map ? FRAME_MAP : FRAME_OBJECT);
    if (!frame)
        return false;
    frame->base = value;
    frame->type = type;
    frame->field = is_map ? type->fields : NULL;
    return true;
}

static bool begin_array(struct parser *parser, const struct place *place)
{
    char *base = place->base;
    const struct json_field *field = place->field;

    if (!place->is_array) {
        const struct json_type *type = placed_type(parser, place);
        base = create_struct(parser, place, type);
        field = type->fields;
    }
    if (!base || !place_empty_array(parser, base, field))
        return false;
    struct frame *frame = push_frame(parser, FRAME_ARRAY);
    if (!frame)
        return false;
    frame->base = base;
    frame->field = field;
    return true;
}

static int on_start_map(void *ctx)
{
    struct parser *parser = ctx;
    struct place place;

    switch (place_value(parser, VALUE_OBJECT, &place)) {
    case VERDICT_STORE:
        return begin_object(parser, &place);
    case VERDICT_SKIP:
        return push_skipped(parser, FRAME_SKIPPED_OBJECT, place.raw);
    default:
        return false;
    }
}

static int on_start_array(void *ctx)
{
    struct parser *parser = ctx;
    struct place place;

    switch (place_value(parser, VALUE_ARRAY, &place)) {
    case VERDICT_STORE:
        return begin_array(parser, &place);
    case VERDICT_SKIP:
        return push_skipped(parser, FRAME_SKIPPED_ARRAY, place.raw);
    default:
        return false;
    }
}

static int compare_name(const struct json_field *field, const char *text, size_t length)
{
    size_t common = field->name_length < length ? field->name_length : length;
    int order = memcmp(field->name, text, common);

    return order ? order : (field->name_length > length) - (field->name_length < length);
}

static const struct json_field *find_field(const struct json_type *type, const char *text,
                                           size_t length)
{
    size_t low = 0, high = type->fields_count;

    while (low < high) {
        size_t middle = (low + high) / 2;
        const struct json_field *field = &type->fields[type->sorted[middle]];
        int order = compare_name(field, text, length);
        if (order == 0)
            return field;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

/* A key that is not a field's: remembered as text. */
static bool enter_key(struct parser *parser, struct frame *frame, const char *text, size_t length)
{
    size_t place = parser_position(parser);
    uint64_t hash = key_set_hash(&parser->keys, text, length);
    const struct key *first = key_set_find(&parser->keys, parser->depth, text, length, hash);

    if (first) {
        size_t first_line = parser_line(parser, first->place);
        /* Put on top, where the path of the message looks for it. */
        key_set_push(&parser->keys, parser->depth, text, length, hash, place);
        return parser_fail(parser, -EINVAL, place, "duplicate key, the first is in line %zu",
                           first_line);
    }
    if (!parser_take(parser, sizeof(struct key) + length + 1))
        return false;
    key_set_push(&parser->keys, parser->depth, text, length, hash, place);
    return frame->kind != FRAME_OBJECT || frame->type->unknown != JSON_UNKNOWN_REFUSE ||
           parser_fail(parser, -EINVAL, place, "unknown field");
}

static int on_map_key(void *ctx, const unsigned char *value, size_t length)
{
    struct parser *parser = ctx;
    struct frame *frame = parser_frame(parser);
    const char *text = (const char *)value;
    size_t start, end;

    if (!check_string(parser, text, length, &start, &end))
        return false;
    frame->value_begun = true;
    if (frame->kind != FRAME_OBJECT)
        return enter_key(parser, frame, text, length);

    frame->field = find_field(frame->type, text, length);
    if (!frame->field)
        return enter_key(parser, frame, text, length);
    size_t index = (size_t)(frame->field - frame->type->fields);
    uint64_t bit = UINT64_C(1) << index % 64;
    if (frame->seen[index / 64] & bit)
        return parser_fail(parser, -EINVAL, end, "duplicate key");
    frame->seen[index / 64] |= bit;
    return true;
}

static bool check_required(struct parser *parser, struct frame *frame)
{
    const struct json_type *type = frame->type;

    for (size_t i = 0; i < type->fields_count; i++) {
        if (!(type->fields[i].flags & JSON_REQUIRED) || frame->seen[i / 64] >> i % 64 & 1)
            continue;
        frame->value_begun = true;
        frame->field = &type->fields[i];
        return parser_fail(parser, -EINVAL, frame->start, "required, but missing");
    }
    return true;
}

static bool pop_frame(struct parser *parser)
{
    const struct frame *frame = parser_frame(parser);

    key_set_truncate(&parser->keys, frame->keys);
    parser->depth--;
    return store_raw(parser, frame->raw, frame->start, parser_position(parser));
}

static int on_end_map(void *ctx)
{
    struct parser *parser = ctx;
    struct frame *frame = parser_frame(parser);

    if (frame->kind == FRAME_OBJECT && !check_required(parser, frame))
        return false;
    return pop_frame(parser);
}

static int on_end_array(void *ctx)
{
    struct parser *parser = ctx;
    struct frame *frame = parser_frame(parser);

    if (frame->kind == FRAME_ARRAY) {
        size_t count = *(size_t *)(frame->base + frame->field->count_offset);
        if (count < frame->field->items_minimum) {
            frame->value_begun = false; /* the message is about the array itself */
            return parser_fail(parser, -EINVAL, frame->start,
                               "%zu elements, at least %u are needed", count,
                               frame->field->items_minimum);
        }
    }
    return pop_frame(parser);
}

static const yajl_callbacks callbacks = {
    .yajl_null = on_null,
    .yajl_boolean = on_boolean,
    .yajl_number = on_number,
    .yajl_string = on_string,
    .yajl_start_map = on_start_map,
    .yajl_map_key = on_map_key,
    .yajl_end_map = on_end_map,
    .yajl_start_array = on_start_array,
    .yajl_end_array = on_end_array,
};

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

/* yajl's words without its "lexical error: " and line end. */
static bool fail_syntax(struct parser *parser)
{
    unsigned char *message = yajl_get_error(parser->yajl, false, NULL, 0);
    const char *text = (const char *)message, *colon = strstr(text, ": ");

    if (colon)
        text = colon + 2;
    parser_fail(parser, -EINVAL, parser_position(parser), "not JSON: %.*s",
                (int)strcspn(text, "\n"), text);
    yajl_free_error(parser->yajl, message);
    return false;
}

static bool run_yajl(struct parser *parser)
{
    const unsigned char *text = (const unsigned char *)parser->text;

    parser->yajl = yajl_alloc(&callbacks, NULL, parser);
    yajl_config(parser->yajl, yajl_dont_validate_strings, 1); /* check_text() was stricter */
    yajl_status status = yajl_parse(parser->yajl, text, parser->length);
    if (status == yajl_status_ok) {
        /* A number that ends with the text arrives only now, when yajl no longer counts. */
        parser->at_end = true;
        status = yajl_complete_parse(parser->yajl);
    }
    if (status != yajl_status_ok && parser->result == 0)
        fail_syntax(parser);
    yajl_free(parser->yajl);
    return parser->result == 0;
}

int json_parse(const struct json_type *type, const char *text, size_t length, const char *source,
               void **ret, struct error *err)
{
    struct parser parser = {
        .source = source,
        .text = text,
        .length = length,
        .err = err,
        .type = type,
    };

    if (check_text(&parser) && run_yajl(&parser))
        *ret = parser.root;
    else
        json_free(type, parser.root);
    key_set_finish(&parser.keys);
    return parser.result;
}
