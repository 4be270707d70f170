/*
 * JSON: what every generated type has in common, and a writer for output by hand.
 *
 * The types themselves (<schema/oci_config.h> and so on) are generated from runtime-spec/; see
 * src/schema/README.md for what a schema becomes. Nothing here blocks or keeps state; everything
 * may be called from any thread as long as a value or writer is used by one at a time.
 */
#ifndef SCHEMA_JSON_H
#define SCHEMA_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/error.h>

/* What a document may ask of us before it is refused with -EFBIG. */
enum {
    JSON_DEPTH_MAX = 64,                  /* nested objects and arrays */
    JSON_DOCUMENT_MAX = 16 * 1024 * 1024, /* bytes of text */
    JSON_MEMORY_MAX = 128 * 1024 * 1024,  /* bytes allocated for the parsed value */
};

/* Describes a generated type to the functions below; each generated NAME has a NAME_type. */
struct json_type;

/* Parses a whole document (UTF-8, not necessarily NUL-terminated) into a newly allocated value.
 * source is the name of the file for messages; NULL leaves the place in the file out of them, for
 * text that no person has in a file. -EINVAL: not JSON, or not a document of this type; -EFBIG: a
 * limit above. *ret is written only on success; release it with json_free() of the same type. */
int json_parse(const struct json_type *type, const char *text, size_t length, const char *source,
               void **ret, struct error *err);

/* Appends the value as compact JSON (no line breaks) or indented by 4. What is NULL or not present
 * (has_x false) is left out, except that a required array or map is written empty. Bytes of
 * strings that are not UTF-8 are written as U+FFFD. */
void json_write(const struct json_type *type, const void *value, struct buffer *out);
void json_write_pretty(const struct json_type *type, const void *value, struct buffer *out);

/* Releases the value and everything in it; NULL is allowed. */
void json_free(const struct json_type *type, void *value);

/* "oci_config" and the like. */
const char *json_type_name(const struct json_type *type);

struct rpc_request;

/* A method of an API, as a schema's x-methods describes it. The tables are generated. */
struct json_method {
    const char *name;
    const struct json_type *params; /* NULL: takes none */
    const struct json_type *result; /* NULL: the result is null */
    const char *summary;
    uint8_t param_fds;  /* descriptors that come with the request (x-param-fds) */
    uint8_t result_fds; /* and with the answer (x-result-fds) */
    bool idempotent;    /* may be sent again when the connection was lost (x-idempotent) */
    bool is_long;       /* may take as long as it wants: no time-out applies (x-long) */
    /* Calls the handler in a struct NAME_handlers, at this offset; NULL: no generated method. */
    void (*call)(const void *handlers, struct rpc_request *request, const void *params,
                 void *context);
    size_t handler;
};

/* As json_parse(), from an array: its items are the fields in the schema's order; null stands for
 * one that is absent. Of a type that is an array itself: as it is. */
int json_parse_positional(const struct json_type *type, const char *text, size_t length, void **ret,
                          struct error *err);

/* A map from strings to strings; in maps of raw JSON the values are JSON text. Keys are unique.
 * All owned. Every generated map has this layout, with values of its own type. */
struct json_string_map {
    char **keys;
    char **values;
    size_t count;
};

extern const struct json_type json_string_map_type;
extern const struct json_type json_raw_map_type;

/* The value, or NULL. map may be NULL. */
const char *json_string_map_get(const struct json_string_map *map, const char *key);
/* Copies key and value; replaces the value of a key that is there. *map NULL: creates it. */
void json_string_map_set(struct json_string_map **map, const char *key, const char *value);
/* Whether there was one. */
bool json_string_map_remove(struct json_string_map *map, const char *key);
struct json_string_map *json_string_map_copy(const struct json_string_map *map);
void json_string_map_free(struct json_string_map *map);

static inline void cleanup_json_string_map_p(struct json_string_map **map)
{
    json_string_map_free(*map);
}
#define _cleanup_json_string_map_ _cleanup_(cleanup_json_string_map_p)

/*
 * Writing by hand:
 *
 *     struct json_writer writer;
 *     json_writer_init(&writer, &out, JSON_COMPACT);
 *     json_writer_object_begin(&writer);
 *     json_writer_key(&writer, "pid");
 *     json_writer_integer(&writer, pid);
 *     json_writer_object_end(&writer);
 *
 * Commas, line breaks and escapes are the writer's; begin and end must match and each value in an
 * object follows a key.
 */
enum json_layout {
    JSON_COMPACT, /* one line */
    JSON_PRETTY,  /* indented by 4 */
    JSON_NARROW,  /* indented by 2 */
};

struct json_writer {
    struct buffer *out; /* not owned */
    enum json_layout layout;
    unsigned int depth;
    bool first;     /* nothing written yet in the current object or array */
    bool after_key; /* the next value belongs to a key */
};

void json_writer_init(struct json_writer *writer, struct buffer *out, enum json_layout layout);
void json_writer_object_begin(struct json_writer *writer);
void json_writer_object_end(struct json_writer *writer);
void json_writer_array_begin(struct json_writer *writer);
void json_writer_array_end(struct json_writer *writer);
void json_writer_key(struct json_writer *writer, const char *key);
/* A key that stands for itself: without quotes, backslashes, control characters, and in ASCII. */
void json_writer_name(struct json_writer *writer, const char *name, size_t length);
void json_writer_string(struct json_writer *writer, const char *text); /* NULL: null */
void json_writer_string_length(struct json_writer *writer, const char *text, size_t length);
void json_writer_integer(struct json_writer *writer, int64_t value);
void json_writer_unsigned(struct json_writer *writer, uint64_t value);
void json_writer_number(struct json_writer *writer, double value); /* not finite: null */
void json_writer_boolean(struct json_writer *writer, bool value);
void json_writer_null(struct json_writer *writer);
void json_writer_raw(struct json_writer *writer, const char *json); /* valid JSON text */
/* A value of a generated type. */
void json_writer_value(struct json_writer *writer, const struct json_type *type, const void *value);

/* Appends text as a JSON string with its quotes. */
void json_quote(struct buffer *out, const char *text, size_t length);

#endif
