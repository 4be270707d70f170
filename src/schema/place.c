#include <errno.h>
#include <string.h>

#include "parser.h"

/* What the allocator adds counts too: many small values are the way to ask for much. */
bool parser_take(struct parser *parser, size_t size)
{
    parser->memory += (size + 31) & ~(size_t)15;
    if (parser->memory <= JSON_MEMORY_MAX)
        return true;
    return parser_fail(parser, -EFBIG, parser_position(parser),
                       "the document needs more than %d MiB of memory",
                       JSON_MEMORY_MAX / 1024 / 1024);
}

/* Slots allocated for an array of count elements, one of them for the terminator: a power of two
 * that is a function of the count alone, so that no array has to remember its capacity. */
static size_t array_slots(size_t count)
{
    return count < 4 ? 4 : (size_t)1 << (64 - __builtin_clzll(count));
}

/* Makes *items, which has count elements, large enough for one more. Returns the place of it;
 * that and the terminator behind it are zeroed. */
static void *grow_array(struct parser *parser, void **items, size_t count, size_t size)
{
    /* The new count needs another power of two only when it is one itself. */
    bool full = count + 1 >= 4 && (count & (count + 1)) == 0;

    if (!*items || full) {
        size_t slots = array_slots(count + 1);
        if (!parser_take(parser, slots * size))
            return NULL;
        *items = xrealloc(*items, slots, size);
    }
    char *slot = (char *)*items + count * size;
    if (size == sizeof(void *)) /* nearly always; the compiler makes two stores of it */
        return memset(slot, 0, 2 * sizeof(void *));
    return memset(slot, 0, 2 * size);
}

bool place_empty_array(struct parser *parser, char *base, const struct json_field *field)
{
    if (!parser_take(parser, array_slots(0) * field->size))
        return false;
    *(void **)(base + field->offset) = xcalloc(array_slots(0), field->size);
    return true;
}

void *place_append(struct parser *parser, char *base, const struct json_field *field)
{
    size_t *count = (size_t *)(base + field->count_offset);

    if (field->flags & JSON_ARRAY && *count >= field->items_maximum) {
        parser_fail(parser, -EINVAL, parser_position(parser), "more than %u elements",
                    field->items_maximum);
        return NULL;
    }
    void *slot = grow_array(parser, (void **)(base + field->offset), *count, field->size);
    if (slot)
        (*count)++;
    return slot;
}

/* Appends the last key read and returns the place of its value. */
static void *append_entry(struct parser *parser, struct json_string_map *map, size_t value_size)
{
    const struct key *key = &parser->keys.keys[parser->keys.count - 1];
    char **name = grow_array(parser, (void **)&map->keys, map->count, sizeof(char *));
    if (!name)
        return NULL;
    void *value = grow_array(parser, (void **)&map->values, map->count, value_size);
    if (!value || !parser_take(parser, key->length + 1))
        return NULL;
    *name = xstrndup(key_set_text(&parser->keys, key), key->length);
    map->count++;
    return value;
}

static enum verdict place_unknown(struct parser *parser, struct frame *frame, struct place *ret)
{
    if (frame->type->unknown != JSON_UNKNOWN_KEEP)
        return VERDICT_SKIP;
    struct json_string_map **map =
        (struct json_string_map **)(frame->base + frame->type->unknown_offset);
    if (!*map) {
        if (!parser_take(parser, sizeof(**map)))
            return VERDICT_FAIL;
        *map = xnew(struct json_string_map);
    }
    ret->raw = append_entry(parser, *map, sizeof(char *));
    return ret->raw ? VERDICT_SKIP : VERDICT_FAIL;
}

static inline bool kind_accepts(const struct json_field *field, enum json_value got)
{
    static const uint8_t accepted[] = {
        [JSON_STRING] = 1 << VALUE_STRING,  [JSON_BOOLEAN] = 1 << VALUE_BOOLEAN,
        [JSON_INTEGER] = 1 << VALUE_NUMBER, [JSON_UNSIGNED] = 1 << VALUE_NUMBER,
        [JSON_DOUBLE] = 1 << VALUE_NUMBER,  [JSON_RAW] = UINT8_MAX,
        [JSON_OBJECT] = 1 << VALUE_OBJECT,
    };

    if (field->kind == JSON_OBJECT && field->type->shape == JSON_SHAPE_ARRAY)
        return got == VALUE_ARRAY;
    return accepted[field->kind] >> got & 1;
}

static enum verdict refuse(struct parser *parser, const struct place *place, enum json_value got)
{
    parser_fail_expected(parser, place, got);
    return VERDICT_FAIL;
}

static enum verdict place_null(struct parser *parser, struct place *place)
{
    uint8_t flags = place->field->flags;

    if (flags & JSON_NULLABLE) {
        *(bool *)(place->base + place->field->null_offset) = true;
        return VERDICT_DONE;
    }
    return flags & JSON_NULL_IS_ABSENT ? VERDICT_DONE : refuse(parser, place, VALUE_NULL);
}

static enum verdict place_array_field(struct parser *parser, struct place *place,
                                      enum json_value got)
{
    const struct json_field *field = place->field;

    if (got == VALUE_ARRAY) {
        place->is_array = true;
        return VERDICT_STORE;
    }
    if (got != VALUE_STRING || !(field->flags & JSON_STRING_OR_ARRAY))
        return refuse(parser, place, got);
    *(bool *)(place->base + field->was_string_offset) = true;
    place->slot = place_append(parser, place->base, field);
    return place->slot ? VERDICT_STORE : VERDICT_FAIL;
}

static enum verdict place_field(struct parser *parser, struct frame *frame, enum json_value got,
                                struct place *place)
{
    const struct json_field *field = frame->field;

    if (!field)
        return place_unknown(parser, frame, place);
    place->field = field;
    place->base = frame->base;
    place->slot = frame->base + field->offset;
    place->is_array = field->flags & JSON_ARRAY;
    if (got == VALUE_NULL &&
        (place->is_array || field->kind != JSON_RAW || field->flags & JSON_NULL_IS_ABSENT))
        return place_null(parser, place);
    if (place->is_array)
        return place_array_field(parser, place, got);
    if (!kind_accepts(field, got))
        return refuse(parser, place, got);
    if (field->has_offset)
        *(bool *)(frame->base + field->has_offset) = true;
    if (field->kind != JSON_RAW)
        return VERDICT_STORE;
    place->raw = place->slot;
    return VERDICT_SKIP;
}

/* An element of an array or a value of a map. A null that is allowed here stays NULL. */
static enum verdict place_element(struct parser *parser, struct frame *frame, enum json_value got,
                                  struct place *place)
{
    const struct json_field *field = frame->field;
    bool null = got == VALUE_NULL && field->flags & JSON_NULL_ELEMENTS;

    place->field = field;
    place->base = frame->base;
    if (!null && !kind_accepts(field, got))
        return refuse(parser, place, got);
    place->slot = frame->kind == FRAME_MAP
                      ? append_entry(parser, (struct json_string_map *)frame->base, field->size)
                      : place_append(parser, frame->base, field);
    if (!place->slot)
        return VERDICT_FAIL;
    if (null)
        return VERDICT_DONE;
    if (field->kind != JSON_RAW)
        return VERDICT_STORE;
    place->raw = place->slot;
    return VERDICT_SKIP;
}

static enum verdict place_root(struct parser *parser, enum json_value got, struct place *place)
{
    static const struct json_field object = {.kind = JSON_OBJECT};
    const struct json_type *type = parser->type;

    place->slot = &parser->root;
    place->field = &object;
    if (got == (type->shape == JSON_SHAPE_ARRAY ? VALUE_ARRAY : VALUE_OBJECT))
        return VERDICT_STORE;
    const struct json_field wanted = {.kind = JSON_OBJECT, .type = type};
    return refuse(parser, &(struct place){.field = &wanted}, got);
}

enum verdict place_value(struct parser *parser, enum json_value got, struct place *ret)
{
    *ret = (struct place){0};
    if (parser->depth == 0)
        return place_root(parser, got, ret);

    struct frame *frame = parser_frame(parser);
    if (frame->kind == FRAME_OBJECT)
        return place_field(parser, frame, got, ret);
    if (!frame_has_keys(frame)) {
        frame->index = frame->value_begun ? frame->index + 1 : 0;
        frame->value_begun = true;
    }
    switch (frame->kind) {
    case FRAME_OBJECT:
    case FRAME_MAP:
    case FRAME_ARRAY:
        return place_element(parser, frame, got, ret);
    case FRAME_SKIPPED_OBJECT:
    case FRAME_SKIPPED_ARRAY:
        break;
    }
    return VERDICT_SKIP;
}
