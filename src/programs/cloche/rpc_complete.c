#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

#include "rpc_complete.h"
#include "rpc_document.h"

enum { DISCOVER_MILLISECONDS = 2000 }; /* somebody waits with a finger on the key */

static void fetch(struct cli *cli, const char *socket, struct rpc_document *document)
{
    _cleanup_rpc_remote_ struct rpc_remote *remote = NULL;

    if (rpc_remote_open(cli, socket, true, NULL, NULL, &remote, NULL) == 0)
        (void)rpc_document_fetch(remote, socket, DISCOVER_MILLISECONDS, document, NULL);
    if (!document->root && !socket)
        rpc_document_builtin(document);
}

static void add(char ***list, const char *word, const char *more, const char *description)
{
    strv_take(list, description ? xasprintf("%s%s\t%s", word, more, description)
                                : xasprintf("%s%s", word, more));
}

char **rpc_complete_methods(struct cli *cli, const char *socket)
{
    _cleanup_rpc_document_ struct rpc_document document = RPC_DOCUMENT_INIT;
    char **list = NULL;

    fetch(cli, socket, &document);
    yajl_val methods = rpc_document_methods(&document);
    for (size_t i = 0; methods && i < methods->u.array.len; i++) {
        const char *name = rpc_node_text(methods->u.array.values[i], "name");
        if (name)
            add(&list, name, "", rpc_node_text(methods->u.array.values[i], "summary"));
    }
    return list;
}

static void add_values(const struct rpc_document *document, yajl_val schema, const char *name,
                       char ***list)
{
    yajl_val choices = tree_get(schema, "enum");
    _cleanup_free_ char *start = xasprintf("%s=", name);

    for (size_t i = 0; YAJL_IS_ARRAY(choices) && i < choices->u.array.len; i++) {
        if (YAJL_IS_STRING(choices->u.array.values[i]))
            add(list, start, choices->u.array.values[i]->u.string, NULL);
    }
    if (rpc_schema_takes(document, schema, "boolean") &&
        !rpc_schema_takes(document, schema, "string")) {
        add(list, start, "true", NULL);
        add(list, start, "false", NULL);
    }
}

char **rpc_complete_params(struct cli *cli, const char *socket, const char *method,
                           const char *typed)
{
    _cleanup_rpc_document_ struct rpc_document document = RPC_DOCUMENT_INIT;
    _cleanup_free_ char *typed_name = xstrndup(typed, strcspn(typed, "="));
    bool values = strchr(typed, '=');
    char **list = NULL;

    fetch(cli, socket, &document);
    yajl_val params = tree_get(rpc_document_method(&document, method), "params");
    for (size_t i = 0; YAJL_IS_ARRAY(params) && i < params->u.array.len; i++) {
        yajl_val param = rpc_document_resolve(&document, params->u.array.values[i]);
        yajl_val schema = rpc_document_resolve(&document, tree_get(param, "schema"));
        const char *name = rpc_node_text(param, "name");
        const char *description = rpc_node_text(param, "description");
        if (!name)
            continue;
        if (values && text_equal(name, typed_name))
            add_values(&document, schema, name, &list);
        else if (!values)
            add(&list, name,
                rpc_schema_takes(&document, schema, "array") &&
                        !rpc_schema_takes(&document, schema, "string")
                    ? "[]="
                    : "=",
                description ? description : rpc_node_text(schema, "description"));
    }
    return list;
}
