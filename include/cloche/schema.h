/*
 * libcloche-rpc: what cloche-rpcgen(1) makes of a schema. Programs use the functions that are
 * generated; this is what these stand on. The tables have the layout that goes with the library of
 * this soname: sources are generated again for another.
 *
 * Results, structures and threads are as <cloche/client.h> and <cloche/rpc.h> say.
 */
#ifndef CLOCHE_SCHEMA_H
#define CLOCHE_SCHEMA_H

#include <cloche/client.h>
#include <cloche/rpc.h>

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(default)

/* ---- tables ---------------------------------------------------------------------------------- */

/* Sources that were generated for another number do not compile. */
#define CLOCHE_SCHEMA_VERSION 1

enum cloche_schema_kind {
    CLOCHE_SCHEMA_STRING,   /* char * */
    CLOCHE_SCHEMA_BOOLEAN,  /* bool */
    CLOCHE_SCHEMA_INTEGER,  /* intN_t of `size` bytes */
    CLOCHE_SCHEMA_UNSIGNED, /* uintN_t of `size` bytes */
    CLOCHE_SCHEMA_DOUBLE,   /* double */
    CLOCHE_SCHEMA_RAW,      /* char *, JSON text */
    CLOCHE_SCHEMA_OBJECT,   /* struct *, described by `type` */
};

enum {
    CLOCHE_SCHEMA_REQUIRED = 1 << 0,
    CLOCHE_SCHEMA_ARRAY = 1 << 1,
    CLOCHE_SCHEMA_STRING_OR_ARRAY = 1 << 2,
    CLOCHE_SCHEMA_NULLABLE = 1 << 3,
    CLOCHE_SCHEMA_NULL_IS_ABSENT = 1 << 4,
    CLOCHE_SCHEMA_FORMAT_VERSION = 1 << 5,
    CLOCHE_SCHEMA_NULL_ELEMENTS = 1 << 6,
};

struct cloche_schema_type;

struct cloche_schema_field {
    const char *name;
    const struct cloche_schema_type *type;
    const char *const *choices; /* ends with NULL; NULL: any */
    int64_t minimum;            /* of a number, or the characters of a string */
    uint64_t maximum;
    uint32_t items_minimum;
    uint32_t items_maximum;
    uint16_t offset; /* in the structure, like the others; 0: there is no such member */
    uint16_t count_offset;
    uint16_t has_offset;
    uint16_t null_offset;
    uint16_t was_string_offset;
    uint16_t name_length;
    uint8_t kind;
    uint8_t size; /* bytes of one value */
    uint8_t flags;
};

enum cloche_schema_shape {
    CLOCHE_SCHEMA_SHAPE_OBJECT,
    CLOCHE_SCHEMA_SHAPE_MAP,
    CLOCHE_SCHEMA_SHAPE_ARRAY,
};

enum cloche_schema_unknown {
    CLOCHE_SCHEMA_UNKNOWN_IGNORE,
    CLOCHE_SCHEMA_UNKNOWN_REFUSE,
    CLOCHE_SCHEMA_UNKNOWN_KEEP,
};

struct cloche_schema_type {
    const char *name;
    const struct cloche_schema_field *fields;
    const uint8_t *sorted; /* indices of fields, by name */
    uint16_t fields_count;
    uint16_t size;
    uint16_t unknown_offset;
    uint8_t shape;
    uint8_t unknown;
    bool any_case;
};

struct cloche_schema_method {
    const char *name;
    const struct cloche_schema_type *params;
    const struct cloche_schema_type *result;
    const char *summary;
    uint8_t param_fds;
    uint8_t result_fds;
    bool idempotent;
    bool is_long;
    void (*call)(const void *handlers, struct cloche_rpc_request *request, const void *params,
                 void *context);
    size_t handler; /* where it is in handlers */
};

/* ---- documents ------------------------------------------------------------------------------- */

/* JSON text into a structure of the type, newly allocated, the caller's: cloche_schema_free().
 * -EINVAL: it is no JSON, or not of the type; -EFBIG: it is too deep or too large. */
int cloche_schema_parse(const struct cloche_schema_type *type, const char *text, size_t length,
                        void **ret, struct cloche_error *error);
/* On one line; free(3)'s. */
char *cloche_schema_write(const struct cloche_schema_type *type, const void *value);
/* NULL is nothing. */
void cloche_schema_free(const struct cloche_schema_type *type, void *value);

/* ---- server ---------------------------------------------------------------------------------- */

/* Methods with typed handlers; all of it has to outlive the server. Members of handlers that are
 * NULL: the server does not have the method. -EEXIST: there is one of that name. */
int cloche_schema_serve(struct cloche_rpc_server *server,
                        const struct cloche_schema_method *methods, size_t count,
                        const void *handlers);

/* The answer, of the method's result type; result NULL: an empty one. It stays the caller's, fd is
 * taken over, -1: none. */
void cloche_schema_reply(struct cloche_rpc_request *request, const void *result, int fd);

/* ---- client ---------------------------------------------------------------------------------- */

/* fd: goes with the request and stays the caller's, -1: none. *ret_result is the caller's:
 * cloche_schema_free(); ret_result may be NULL. ret_fd: NULL unless one is to come, which is the
 * caller's then. */
int cloche_schema_call(struct cloche_client *client, const struct cloche_schema_method *method,
                       const void *params, int fd, const struct cloche_call_options *options,
                       void **ret_result, int *ret_fd, struct cloche_error *error);

/* Calls function, the caller's callback, whose type it knows. fd: -1 when none came. */
typedef void (*cloche_schema_done)(void (*function)(void), void *data, void *result, int fd,
                                   const struct cloche_error *error);

/* As cloche_client_call_async(). */
int64_t cloche_schema_call_async(struct cloche_client *client,
                                 const struct cloche_schema_method *method, const void *params,
                                 int fd, const struct cloche_call_options *options,
                                 cloche_schema_done call, void (*function)(void), void *data);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif
