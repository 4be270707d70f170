/*
 * The tables that generated sources are made of. Only they and the engine of src/schema include
 * this; everybody else uses the generated functions, or json_parse() and its like.
 */
#ifndef SCHEMA_JSON_TYPE_H
#define SCHEMA_JSON_TYPE_H

#include <schema/json.h>

enum { JSON_FIELDS_MAX = 128 }; /* in one object; the generator refuses more */

enum json_kind {
    JSON_STRING,   /* char * */
    JSON_BOOLEAN,  /* bool */
    JSON_INTEGER,  /* intN_t of `size` bytes */
    JSON_UNSIGNED, /* uintN_t of `size` bytes */
    JSON_DOUBLE,   /* double */
    JSON_RAW,      /* char *, JSON text */
    JSON_OBJECT,   /* struct *, described by `type` (an object, map or array definition) */
};

enum {
    JSON_REQUIRED = 1 << 0,
    JSON_ARRAY = 1 << 1,           /* an array of `kind` */
    JSON_STRING_OR_ARRAY = 1 << 2, /* with JSON_ARRAY: one string stands for an array of one */
    JSON_NULLABLE = 1 << 3,        /* null is kept apart, in null_offset */
    JSON_NULL_IS_ABSENT = 1 << 4,  /* null is as if the field was not there */
    JSON_FORMAT_VERSION = 1 << 5,  /* a number above `maximum` is a format from the future */
    JSON_NULL_ELEMENTS = 1 << 6,   /* elements of the array or map may be null: NULL */
};

struct json_field {
    const char *name;
    const struct json_type *type; /* JSON_OBJECT */
    const char *const *choices;   /* JSON_STRING: NULL-terminated, or NULL for any */
    int64_t minimum;              /* of a number, or the characters of a string */
    uint64_t maximum;
    uint32_t items_minimum; /* JSON_ARRAY */
    uint32_t items_maximum;
    /* In the struct. 0 where there is no such member: a value always precedes them. */
    uint16_t offset;
    uint16_t count_offset;
    uint16_t has_offset;
    uint16_t null_offset;
    uint16_t was_string_offset;
    uint16_t name_length;
    uint8_t kind; /* enum json_kind */
    uint8_t size; /* bytes of one value */
    uint8_t flags;
};

enum json_shape {
    JSON_SHAPE_OBJECT,
    JSON_SHAPE_MAP,   /* struct json_string_map's layout; fields[0] describes the values */
    JSON_SHAPE_ARRAY, /* {items, count}; fields[0] describes the items */
};

enum json_unknown {
    JSON_UNKNOWN_IGNORE,
    JSON_UNKNOWN_REFUSE,
    JSON_UNKNOWN_KEEP, /* as raw JSON in the map at unknown_offset */
};

struct json_type {
    const char *name;
    const struct json_field *fields; /* in the order in which they are written */
    const uint8_t *sorted;           /* indices of fields, by name */
    uint16_t fields_count;
    uint16_t size; /* of the struct */
    uint16_t unknown_offset;
    uint8_t shape;   /* enum json_shape */
    uint8_t unknown; /* enum json_unknown */
    bool any_case;   /* a name that is no field's is that of one if they differ in case only */
};

#endif
