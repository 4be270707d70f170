#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/openrpc.h>

#include "options.h"
#include "rpc_document.h"

enum {
    METHOD_NOT_FOUND = -32601,
    REFERENCES_MAX = 16, /* that lead to each other */
};

void rpc_document_builtin(struct rpc_document *document)
{
    (void)tree_parse(&document->arena, schema_openrpc, &document->root, NULL);
}

int rpc_document_fetch(struct rpc_remote *remote, const char *socket, uint64_t timeout_ms,
                       struct rpc_document *document, struct error *err)
{
    _cleanup_rpc_remote_answer_ struct rpc_remote_answer answer = {0};
    _cleanup_error_ struct error problem = ERROR_INIT;
    const struct rpc_remote_call call = {
        .method = "rpc.discover", .params = "{}", .timeout_ms = timeout_ms, .fd = -1};

    int r = rpc_remote_call(remote, &call, &answer, &problem);
    if (r == 0)
        return tree_parse(&document->arena, answer.result, &document->root, err);
    if (answer.fault != METHOD_NOT_FOUND)
        return error_move(err, &problem);
    if (!socket)
        rpc_document_builtin(document);
    return 0;
}

void rpc_document_finish(struct rpc_document *document)
{
    tree_arena_finish(&document->arena);
    document->root = NULL;
}

const char *rpc_node_text(yajl_val node, const char *key)
{
    yajl_val member = tree_get(node, key);

    return YAJL_IS_STRING(member) ? member->u.string : NULL;
}

/* ---- methods ---- */

yajl_val rpc_document_methods(const struct rpc_document *document)
{
    yajl_val methods = tree_get(document->root, "methods");

    return YAJL_IS_ARRAY(methods) ? methods : NULL;
}

yajl_val rpc_document_method(const struct rpc_document *document, const char *name)
{
    yajl_val methods = rpc_document_methods(document);

    for (size_t i = 0; methods && i < methods->u.array.len; i++) {
        if (text_equal(rpc_node_text(methods->u.array.values[i], "name"), name))
            return methods->u.array.values[i];
    }
    return NULL;
}

const char *rpc_document_suggest(const struct rpc_document *document, const char *name)
{
    yajl_val methods = rpc_document_methods(document);
    const char *best = NULL;

    for (size_t i = 0; methods && i < methods->u.array.len; i++) {
        const char *known = rpc_node_text(methods->u.array.values[i], "name");
        if (known && word_is_near(name, known) &&
            (!best || word_distance(name, known) < word_distance(name, best)))
            best = known;
    }
    return best;
}

yajl_val rpc_document_param(const struct rpc_document *document, yajl_val method, const char *name)
{
    yajl_val params = tree_get(method, "params");

    for (size_t i = 0; YAJL_IS_ARRAY(params) && i < params->u.array.len; i++) {
        yajl_val param = rpc_document_resolve(document, params->u.array.values[i]);
        if (text_equal(rpc_node_text(param, "name"), name))
            return param;
    }
    return NULL;
}

/* ---- schemas ---- */

/* "#/components/schemas/x": a walk from the root. NULL: it leads nowhere. */
static yajl_val follow(const struct rpc_document *document, const char *reference)
{
    yajl_val node = document->root;

    if (!text_starts_with(reference, "#/"))
        return NULL;
    for (const char *at = reference + 2; node && at; at = strchr(at, '/')) {
        at += *at == '/';
        _cleanup_free_ char *name = xstrndup(at, strcspn(at, "/"));
        node = tree_get(node, name);
    }
    return node;
}

yajl_val rpc_document_resolve(const struct rpc_document *document, yajl_val schema)
{
    for (int i = 0; i < REFERENCES_MAX; i++) {
        const char *reference = rpc_node_text(schema, "$ref");
        if (!reference)
            return schema;
        schema = follow(document, reference);
    }
    return NULL;
}

/* Alternatives of a schema; NULL: it has none. */
static yajl_val alternatives(yajl_val schema)
{
    yajl_val list = tree_get(schema, "oneOf");

    if (!list)
        list = tree_get(schema, "anyOf");
    return YAJL_IS_ARRAY(list) ? list : NULL;
}

static bool is_type(yajl_val word, const char *type)
{
    const char *name = YAJL_IS_STRING(word) ? word->u.string : NULL;

    return text_equal(name, type) || (text_equal(name, "number") && text_equal(type, "integer"));
}

static bool takes(const struct rpc_document *document, yajl_val schema, const char *type, int depth)
{
    schema = rpc_document_resolve(document, schema);
    yajl_val types = tree_get(schema, "type"), list = alternatives(schema);

    if (depth > REFERENCES_MAX)
        return false;
    for (size_t i = 0; list && i < list->u.array.len; i++) {
        if (takes(document, list->u.array.values[i], type, depth + 1))
            return true;
    }
    for (size_t i = 0; YAJL_IS_ARRAY(types) && i < types->u.array.len; i++) {
        if (is_type(types->u.array.values[i], type))
            return true;
    }
    if (YAJL_IS_STRING(types))
        return is_type(types, type);
    return !types && !list;
}

bool rpc_schema_takes(const struct rpc_document *document, yajl_val schema, const char *type)
{
    return takes(document, schema, type, 0);
}

static void type_text(const struct rpc_document *document, yajl_val schema, struct buffer *out,
                      int depth)
{
    schema = rpc_document_resolve(document, schema);
    yajl_val list = alternatives(schema), choices = tree_get(schema, "enum");
    const char *type = rpc_node_text(schema, "type"), *format = rpc_node_text(schema, "format");

    if (depth > REFERENCES_MAX)
        return;
    for (size_t i = 0; list && i < list->u.array.len; i++) {
        buffer_append_text(out, i ? " or " : "");
        type_text(document, list->u.array.values[i], out, depth + 1);
    }
    for (size_t i = 0; YAJL_IS_ARRAY(choices) && i < choices->u.array.len; i++) {
        buffer_append_text(out, i ? "|" : "");
        tree_write(choices->u.array.values[i], TREE_COMPACT, out);
    }
    if (list || choices)
        return;
    if (text_equal(type, "array")) {
        buffer_append_text(out, "array of ");
        type_text(document, tree_get(schema, "items"), out, depth + 1);
    } else if (text_equal(type, "object") && tree_get(schema, "additionalProperties") &&
               !tree_get(schema, "properties")) {
        buffer_append_text(out, "object of ");
        type_text(document, tree_get(schema, "additionalProperties"), out, depth + 1);
    } else {
        buffer_append_text(out, format && !text_equal(type, "string") ? format
                                : type                                ? type
                                                                      : "any");
    }
}

void rpc_schema_type_text(const struct rpc_document *document, yajl_val schema, struct buffer *out)
{
    type_text(document, schema, out, 0);
}
