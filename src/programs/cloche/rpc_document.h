/*
 * What a server says of its methods: the OpenRPC document that rpc.discover answers, and how its
 * schemas are read. Nodes live as long as the document.
 */
#ifndef CLOCHE_RPC_DOCUMENT_H
#define CLOCHE_RPC_DOCUMENT_H

#include "rpc_remote.h"
#include "tree.h"

struct rpc_document {
    struct tree_arena arena;
    yajl_val root; /* NULL: the server tells nothing of its methods */
};

#define RPC_DOCUMENT_INIT                                                                          \
    {                                                                                              \
        TREE_ARENA_INIT, NULL                                                                      \
    }

/* Asks the server. socket: the one that was named, or NULL for the instance's daemon. A server that
 * has no rpc.discover is no error: for a daemon the document is what this program was built with,
 * for any other server root stays NULL. */
int rpc_document_fetch(struct rpc_remote *remote, const char *socket, uint64_t timeout_ms,
                       struct rpc_document *document, struct error *err);
/* What this program was built with: the methods of a daemon of its own version. */
void rpc_document_builtin(struct rpc_document *document);
void rpc_document_finish(struct rpc_document *document);
#define _cleanup_rpc_document_ _cleanup_(rpc_document_finish)

/* The array of methods, or NULL. */
yajl_val rpc_document_methods(const struct rpc_document *document);
yajl_val rpc_document_method(const struct rpc_document *document, const char *name);
/* The name most like it, or NULL. */
const char *rpc_document_suggest(const struct rpc_document *document, const char *name);

/* Parameter of a method (a content descriptor: name, schema, required ...), or NULL. */
yajl_val rpc_document_param(const struct rpc_document *document, yajl_val method, const char *name);

/* Follows references. NULL stays NULL. */
yajl_val rpc_document_resolve(const struct rpc_document *document, yajl_val schema);

/* Whether the schema takes values of this type: "string", "integer", "number", "boolean", "array",
 * "object", "null". A schema that says nothing of types takes all. */
bool rpc_schema_takes(const struct rpc_document *document, yajl_val schema, const char *type);

/* "string", "uint64", "array of string", "object": for people. Appended. */
void rpc_schema_type_text(const struct rpc_document *document, yajl_val schema, struct buffer *out);

/* The text of a member that is a string; NULL: there is none. */
const char *rpc_node_text(yajl_val node, const char *key);

#endif
