/*
 * include/cloche/schema.h: its tables are those of schema/json_type.h under public names.
 */
#include <string.h>

#include <cloche/schema.h>
#include <rpc/pool.h>
#include <schema/json_type.h>

#include "library.h"
#include "pool.h"

#define SAME(ours, theirs) _Static_assert((int)(ours) == (int)(theirs), #theirs)
#define SAME_PLACE(kind, member)                                                                   \
    _Static_assert(offsetof(struct json_##kind, member) ==                                         \
                       offsetof(struct cloche_schema_##kind, member),                              \
                   #member)

SAME(JSON_STRING, CLOCHE_SCHEMA_STRING);
SAME(JSON_BOOLEAN, CLOCHE_SCHEMA_BOOLEAN);
SAME(JSON_INTEGER, CLOCHE_SCHEMA_INTEGER);
SAME(JSON_UNSIGNED, CLOCHE_SCHEMA_UNSIGNED);
SAME(JSON_DOUBLE, CLOCHE_SCHEMA_DOUBLE);
SAME(JSON_RAW, CLOCHE_SCHEMA_RAW);
SAME(JSON_OBJECT, CLOCHE_SCHEMA_OBJECT);
SAME(JSON_REQUIRED, CLOCHE_SCHEMA_REQUIRED);
SAME(JSON_ARRAY, CLOCHE_SCHEMA_ARRAY);
SAME(JSON_STRING_OR_ARRAY, CLOCHE_SCHEMA_STRING_OR_ARRAY);
SAME(JSON_NULLABLE, CLOCHE_SCHEMA_NULLABLE);
SAME(JSON_NULL_IS_ABSENT, CLOCHE_SCHEMA_NULL_IS_ABSENT);
SAME(JSON_FORMAT_VERSION, CLOCHE_SCHEMA_FORMAT_VERSION);
SAME(JSON_NULL_ELEMENTS, CLOCHE_SCHEMA_NULL_ELEMENTS);
SAME(JSON_SHAPE_OBJECT, CLOCHE_SCHEMA_SHAPE_OBJECT);
SAME(JSON_SHAPE_MAP, CLOCHE_SCHEMA_SHAPE_MAP);
SAME(JSON_SHAPE_ARRAY, CLOCHE_SCHEMA_SHAPE_ARRAY);
SAME(JSON_UNKNOWN_IGNORE, CLOCHE_SCHEMA_UNKNOWN_IGNORE);
SAME(JSON_UNKNOWN_REFUSE, CLOCHE_SCHEMA_UNKNOWN_REFUSE);
SAME(JSON_UNKNOWN_KEEP, CLOCHE_SCHEMA_UNKNOWN_KEEP);

SAME(sizeof(struct json_field), sizeof(struct cloche_schema_field));
SAME_PLACE(field, name);
SAME_PLACE(field, type);
SAME_PLACE(field, choices);
SAME_PLACE(field, minimum);
SAME_PLACE(field, maximum);
SAME_PLACE(field, items_minimum);
SAME_PLACE(field, items_maximum);
SAME_PLACE(field, offset);
SAME_PLACE(field, count_offset);
SAME_PLACE(field, has_offset);
SAME_PLACE(field, null_offset);
SAME_PLACE(field, was_string_offset);
SAME_PLACE(field, name_length);
SAME_PLACE(field, kind);
SAME_PLACE(field, size);
SAME_PLACE(field, flags);

SAME(sizeof(struct json_type), sizeof(struct cloche_schema_type));
SAME_PLACE(type, name);
SAME_PLACE(type, fields);
SAME_PLACE(type, sorted);
SAME_PLACE(type, fields_count);
SAME_PLACE(type, size);
SAME_PLACE(type, unknown_offset);
SAME_PLACE(type, shape);
SAME_PLACE(type, unknown);
SAME_PLACE(type, any_case);

SAME(sizeof(struct json_method), sizeof(struct cloche_schema_method));
SAME_PLACE(method, name);
SAME_PLACE(method, params);
SAME_PLACE(method, result);
SAME_PLACE(method, summary);
SAME_PLACE(method, param_fds);
SAME_PLACE(method, result_fds);
SAME_PLACE(method, idempotent);
SAME_PLACE(method, is_long);
SAME_PLACE(method, call);
SAME_PLACE(method, handler);

static const struct json_type *inner_type(const struct cloche_schema_type *type)
{
    return (const struct json_type *)type;
}

static const struct json_method *inner_method(const struct cloche_schema_method *method)
{
    return (const struct json_method *)method;
}

/* ---- documents ---- */

int cloche_schema_parse(const struct cloche_schema_type *type, const char *text, size_t length,
                        void **ret, struct cloche_error *error)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    int r = json_parse(inner_type(type), text, length, NULL, ret, &err);
    return r < 0 ? error_give(error, &err, 0, NULL) : 0;
}

char *cloche_schema_write(const struct cloche_schema_type *type, const void *value)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;

    json_write(inner_type(type), value, &text);
    return buffer_steal(&text);
}

void cloche_schema_free(const struct cloche_schema_type *type, void *value)
{
    json_free(inner_type(type), value);
}

/* ---- server ---- */

int cloche_schema_serve(struct cloche_rpc_server *server,
                        const struct cloche_schema_method *methods, size_t count,
                        const void *handlers)
{
    for (size_t i = 0; i < count; i++) {
        void (*handler)(void);
        memcpy(&handler, (const char *)handlers + methods[i].handler, sizeof(handler));
        if (!handler)
            continue;
        int r = library_add_typed(server, &methods[i], handlers);
        if (r < 0)
            return r;
    }
    return 0;
}

/* ---- client ---- */

int cloche_schema_call(struct cloche_client *client, const struct cloche_schema_method *method,
                       const void *params, int fd, const struct cloche_call_options *options,
                       void **ret_result, int *ret_fd, struct cloche_error *error)
{
    return rpc_stub_call(client, inner_method(method), params, fd, options, ret_result, ret_fd,
                         error);
}

int64_t cloche_schema_call_async(struct cloche_client *client,
                                 const struct cloche_schema_method *method, const void *params,
                                 int fd, const struct cloche_call_options *options,
                                 cloche_schema_done call, void (*function)(void), void *data)
{
    return rpc_stub_call_async(client, inner_method(method), params, fd, options, call, function,
                               data);
}
