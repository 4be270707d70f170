#include <errno.h>
#include <string.h>
#include <strings.h>

#include "field.h"
#include "next_key.h"
#include "parser.h"

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

bool open_skipped(struct parser *parser, enum frame_kind kind, char **raw)
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

/* An object that goes on under a name in other case: with fields that were not there. What is said
 * twice would be one thing for us and another for whoever looked at the document before. */
static bool reopen_object(struct parser *parser, char *value, const struct json_type *type)
{
    struct frame *frame = push_frame(parser, FRAME_OBJECT);

    if (!frame)
        return false;
    frame->base = value;
    frame->type = type;
    for (size_t i = 0; i < type->fields_count; i++) {
        const struct json_field *field = &type->fields[i];
        if (field->flags & JSON_REQUIRED || field_is_null(field, value) ||
            field_is_present(field, value))
            frame->seen[i / 64] |= UINT64_C(1) << i % 64;
    }
    return true;
}

bool open_object(struct parser *parser, const struct place *place)
{
    const struct json_type *type = placed_type(parser, place);
    bool is_map = type->shape == JSON_SHAPE_MAP;
    if (parser->depth && parser_frame(parser)->joins && *(char **)place->slot)
        return reopen_object(parser, *(char **)place->slot, type);
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

bool open_array(struct parser *parser, const struct place *place)
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

static bool is_object(const struct json_field *field)
{
    return field->kind == JSON_OBJECT && !field_is_array(field) && !field_is_map(field);
}

/* As Go's encoding/json reads names: in other case, too, where none is the same. Behind the field
 * itself it goes on with an object, and is a duplicate otherwise. */
static const struct json_field *find_field_in_any_case(struct frame *frame, const char *text,
                                                       size_t length)
{
    const struct json_type *type = frame->type;

    for (size_t i = 0; type->any_case && i < type->fields_count; i++) {
        const struct json_field *field = &type->fields[i];
        if (field->name_length != length || strncasecmp(field->name, text, length) != 0)
            continue;
        frame->joins = is_object(field) && frame->seen[i / 64] >> i % 64 & 1;
        return field;
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
    /* First, so that the path of a message finds it. */
    key_set_push(&parser->keys, parser->depth, text, length, hash, place);
    if (!parser_take(parser, sizeof(struct key) + length + 1))
        return false;
    return frame->kind != FRAME_OBJECT || frame->type->unknown != JSON_UNKNOWN_REFUSE ||
           parser_fail(parser, -EINVAL, place, "unknown field");
}

bool open_key(struct parser *parser, const char *text, size_t length)
{
    struct frame *frame = parser_frame(parser);

    if (open_next_key(parser, text, length))
        return true;
    frame->value_begun = true;
    if (frame->kind != FRAME_OBJECT)
        return enter_key(parser, frame, text, length);
    frame->joins = false;
    frame->field = find_field(frame->type, text, length);
    if (!frame->field)
        frame->field = find_field_in_any_case(frame, text, length);
    if (!frame->field)
        return enter_key(parser, frame, text, length);
    return enter_field(frame, (size_t)(frame->field - frame->type->fields)) || frame->joins ||
           parser_fail(parser, -EINVAL, parser_position(parser), "duplicate key");
}

bool close_object(struct parser *parser)
{
    struct frame *frame = parser_frame(parser);
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

bool close_array(struct parser *parser)
{
    struct frame *frame = parser_frame(parser);
    size_t count = *(size_t *)(frame->base + frame->field->count_offset);

    if (count >= frame->field->items_minimum)
        return true;
    frame->value_begun = false; /* the message is about the array itself */
    return parser_fail(parser, -EINVAL, frame->start, "%zu elements, at least %u are needed", count,
                       frame->field->items_minimum);
}

void close_frame(struct parser *parser)
{
    key_set_truncate(&parser->keys, parser_frame(parser)->keys);
    parser->depth--;
}
