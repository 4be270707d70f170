/*
 * The state of one parse, shared by the files of the reader:
 *
 *     parse.c     JSON text: tokens, in the order of the grammar
 *     cbor_parse.c  the same for CBOR
 *     open.c      objects, arrays and keys that open and close
 *     place.c     where the next value belongs, and whether it may stand there
 *     scalar.c    text to numbers, checks of strings
 *     keys.c      the keys seen in open maps, to refuse the second of a kind
 *     diagnose.c  messages with line and path
 */
#ifndef SCHEMA_PARSER_H
#define SCHEMA_PARSER_H

#include <schema/json_type.h>

/* What the document has, as opposed to what a field wants. */
enum json_value {
    VALUE_NULL,
    VALUE_BOOLEAN,
    VALUE_NUMBER,
    VALUE_STRING,
    VALUE_ARRAY,
    VALUE_OBJECT,
};

struct key {
    uint64_t hash;
    size_t text;   /* offset in keys.text */
    size_t length; /* the text is NUL-terminated besides */
    uint32_t next; /* in the chain of the bucket; KEY_NONE ends it */
    uint32_t frame;
    size_t place; /* in the document, just behind the key */
};

/* Keys of all open frames, as a stack with a chained hash table over it. Last in, first out, so
 * that the keys of a frame are dropped from the heads of their chains. */
struct key_set {
    struct key *keys;
    uint32_t *buckets;
    size_t count, capacity, buckets_count;
    struct buffer text;
    uint64_t seed;
};

enum frame_kind {
    FRAME_OBJECT,
    FRAME_MAP,
    FRAME_ARRAY,
    FRAME_SKIPPED_OBJECT, /* inside of an unknown field or raw JSON */
    FRAME_SKIPPED_ARRAY,
};

/* An object or array that is open. */
struct frame {
    enum frame_kind kind;
    bool value_begun;               /* an array's first element or an object's first key was seen */
    bool joins;                     /* FRAME_OBJECT: the field was there, and its object goes on */
    size_t start;                   /* offset of the bracket in the document */
    size_t index;                   /* FRAME_ARRAY and FRAME_SKIPPED_ARRAY: of the last element */
    size_t keys;                    /* keys in the set when it was opened */
    size_t next;                    /* FRAME_OBJECT: the field behind the last one seen */
    char *base;                     /* the struct whose members are filled */
    const struct json_type *type;   /* FRAME_OBJECT: of base */
    const struct json_field *field; /* FRAME_OBJECT: of the last key, NULL for an unknown one; else
                                     * the one that describes the elements */
    char **raw;                     /* outermost FRAME_SKIPPED_*: where its text goes, or NULL */
    uint64_t seen[JSON_FIELDS_MAX / 64]; /* FRAME_OBJECT: fields by index */
};

struct parser {
    const char *source;
    const char *text;
    size_t length;
    size_t position; /* behind the last token */
    struct error *err;
    int result; /* -errno once a message was built */

    const struct json_type *type;
    void *root; /* owned */
    size_t memory;
    struct key_set keys;
    struct buffer scratch; /* a string whose escapes were decoded */
    unsigned int depth;
    struct frame frames[JSON_DEPTH_MAX];
};

/* place.c */
enum verdict {
    VERDICT_FAIL,  /* refused; the message is built */
    VERDICT_STORE, /* belongs into place->slot */
    VERDICT_DONE,  /* nothing more to do with it (a null) */
    VERDICT_SKIP,  /* not looked into; its text goes to place->raw unless that is NULL */
};

struct place {
    const struct json_field *field;
    void *slot; /* of one value; for an array field the array member itself */
    char *base; /* the struct that has the field */
    char **raw;
    bool is_array; /* the field's array itself begins, not an element of it */
};

/* A value begins in the current frame. */
enum verdict place_value(struct parser *parser, enum json_value got, struct place *ret);

/* Makes room for an element behind the last and counts it. NULL: failed. */
void *place_append(struct parser *parser, char *base, const struct json_field *field);

/* An array with no elements: not NULL, which would be absent. */
bool place_empty_array(struct parser *parser, char *base, const struct json_field *field);

/* Counts memory about to be allocated. */
bool parser_take(struct parser *parser, size_t size);

/* Offset behind the last token. */
static inline size_t parser_position(const struct parser *parser)
{
    return parser->position;
}

static inline struct frame *parser_frame(struct parser *parser)
{
    return &parser->frames[parser->depth - 1];
}

static inline bool frame_has_keys(const struct frame *frame)
{
    return frame->kind != FRAME_ARRAY && frame->kind != FRAME_SKIPPED_ARRAY;
}

/* scalar.c: store what was read into the slot, or fail. */
bool scalar_store_string(struct parser *parser, const struct place *place, const char *text,
                         size_t length);
bool scalar_store_number(struct parser *parser, const struct place *place, const char *text,
                         size_t length);
bool scalar_store_integer(struct parser *parser, const struct place *place, bool negative,
                          uint64_t magnitude);
bool scalar_store_double(struct parser *parser, const struct place *place, double value);

/* open.c. An object or array whose place is known begins; keys of the open object; their ends.
 * raw: where the text of a skipped one goes, or NULL; start: of the bracket. */
bool open_object(struct parser *parser, const struct place *place);
bool open_array(struct parser *parser, const struct place *place);
bool open_skipped(struct parser *parser, enum frame_kind kind, char **raw);
bool open_key(struct parser *parser, const char *text, size_t length);
/* All that is asked of it at its end; the frame stays. */
bool close_object(struct parser *parser);
bool close_array(struct parser *parser);
void close_frame(struct parser *parser);

/* keys.c. The set begins zeroed. */
const struct key *key_set_find(const struct key_set *set, uint32_t frame, const char *text,
                               size_t length, uint64_t hash);
uint64_t key_set_hash(struct key_set *set, const char *text, size_t length);
void key_set_push(struct key_set *set, uint32_t frame, const char *text, size_t length,
                  uint64_t hash, size_t place);
void key_set_truncate(struct key_set *set, size_t count);
const char *key_set_text(const struct key_set *set, const struct key *key);
void key_set_finish(struct key_set *set);

/* diagnose.c. Builds "source:line: path: message", once; always false. place is an offset in the
 * document. */
bool parser_fail(struct parser *parser, int code, size_t place, const char *format, ...)
    _printf_(4, 5);
/* "expected an integer, got a string" */
bool parser_fail_expected(struct parser *parser, const struct place *place, enum json_value got);
size_t parser_line(const struct parser *parser, size_t place);
/* Shortened and escaped for a message. Owned. */
char *quoted_excerpt(const char *text, size_t length);

#endif
