#include <errno.h>
#include <stdio.h>

#include <base/alloc.h>
#include <base/text.h>

#include "rpc_document.h"
#include "table.h"

struct methods_options {
    const char *socket;
    const char *format;
};

static const char *const methods_formats[] = {"json", "table", NULL};

static const struct option methods_table[] = {
    {
        .name = "format",
        .short_name = 'f',
        .kind = OPTION_TEXT,
        .offset = offsetof(struct methods_options, format),
        .argument = "string",
        .help = "\"json\" (OpenRPC) or \"table\" (default \"table\")",
        .complete = COMPLETE_CHOICES,
        .choices = methods_formats,
    },
    {
        .name = "socket",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct methods_options, socket),
        .argument = "path",
        .help = "Socket of another server than the instance's daemon",
        .complete = COMPLETE_FILES,
    },
    {.name = NULL},
};

static const struct option_group methods_groups[] = {{.options = methods_table}, {.options = NULL}};

enum { DISCOVER_MILLISECONDS = 30000 };

static const char *or_nothing(const char *text)
{
    return text ? text : "";
}

/* ---- all of them ---- */

/* "container, signal?": those that may be left out have a question mark. */
static void append_params(const struct rpc_document *document, yajl_val method, struct buffer *out)
{
    yajl_val params = tree_get(method, "params");

    for (size_t i = 0; YAJL_IS_ARRAY(params) && i < params->u.array.len; i++) {
        yajl_val param = rpc_document_resolve(document, params->u.array.values[i]);
        buffer_printf(out, "%s%s%s", i ? ", " : "", or_nothing(rpc_node_text(param, "name")),
                      YAJL_IS_TRUE(tree_get(param, "required")) ? "" : "?");
    }
}

static void list_methods(const struct rpc_document *document, struct buffer *out)
{
    _cleanup_table_ struct table *table = table_create();
    yajl_val methods = rpc_document_methods(document);

    table_add(table, "METHOD\tSUMMARY");
    for (size_t i = 0; methods && i < methods->u.array.len; i++) {
        yajl_val method = methods->u.array.values[i];
        _cleanup_free_ char *row = xasprintf("%s\t%s", or_nothing(rpc_node_text(method, "name")),
                                             or_nothing(rpc_node_text(method, "summary")));
        table_add(table, row);
    }
    table_write(table, out);
}

/* ---- one ---- */

enum { MEMBERS_DEPTH = 3 }; /* of what is in parameters and results */

static void add_row(struct table *table, const char *name, const char *type, bool needed,
                    const char *description)
{
    _cleanup_free_ char *row = xasprintf("  %s\t%s\t%s\t%s", name, type, needed ? "required" : "",
                                         or_nothing(description));
    table_add(table, row);
}

static bool is_required(yajl_val schema, const char *name)
{
    yajl_val required = tree_get(schema, "required");

    for (size_t i = 0; YAJL_IS_ARRAY(required) && i < required->u.array.len; i++) {
        yajl_val item = required->u.array.values[i];
        if (YAJL_IS_STRING(item) && text_equal(item->u.string, name))
            return true;
    }
    return false;
}

static void add_value(const struct rpc_document *document, struct table *table, const char *name,
                      yajl_val schema, bool needed, const char *description, int depth);

/* The members of an object, or of the objects in an array, as "name.member" or "name[].member". */
static void add_members(const struct rpc_document *document, struct table *table, const char *name,
                        yajl_val schema, int depth)
{
    yajl_val items = rpc_document_resolve(document, tree_get(schema, "items"));
    yajl_val object = items ? items : schema, members = tree_get(object, "properties");
    const char *joint = items ? "[]." : *name ? "." : "";

    for (size_t i = 0; YAJL_IS_OBJECT(members) && i < members->u.object.len; i++) {
        _cleanup_free_ char *path = xasprintf("%s%s%s", name, joint, members->u.object.keys[i]);
        add_value(document, table, path, members->u.object.values[i],
                  is_required(object, members->u.object.keys[i]), NULL, depth);
    }
}

static void add_value(const struct rpc_document *document, struct table *table, const char *name,
                      yajl_val schema, bool needed, const char *description, int depth)
{
    _cleanup_buffer_ struct buffer type = BUFFER_INIT;
    yajl_val resolved = rpc_document_resolve(document, schema);

    if (!description)
        description = rpc_node_text(schema, "description");
    rpc_schema_type_text(document, resolved, &type);
    add_row(table, name, buffer_text(&type), needed,
            description ? description : rpc_node_text(resolved, "description"));
    if (depth > 0)
        add_members(document, table, name, resolved, depth - 1);
}

static void describe_params(const struct rpc_document *document, yajl_val method,
                            struct buffer *out)
{
    _cleanup_table_ struct table *table = table_create();
    yajl_val params = tree_get(method, "params");
    size_t count = YAJL_IS_ARRAY(params) ? params->u.array.len : 0;

    buffer_append_text(out, count ? "\nParameters:\n" : "\nParameters: none\n");
    for (size_t i = 0; i < count; i++) {
        yajl_val param = rpc_document_resolve(document, params->u.array.values[i]);
        add_value(document, table, or_nothing(rpc_node_text(param, "name")),
                  tree_get(param, "schema"), YAJL_IS_TRUE(tree_get(param, "required")),
                  rpc_node_text(param, "description"), MEMBERS_DEPTH);
    }
    table_write(table, out);
}

static void describe_result(const struct rpc_document *document, yajl_val method,
                            struct buffer *out)
{
    _cleanup_table_ struct table *table = table_create();
    yajl_val result = rpc_document_resolve(document, tree_get(method, "result"));
    yajl_val schema = rpc_document_resolve(document, tree_get(result, "schema"));
    yajl_val members = tree_get(schema, "properties");

    if (YAJL_IS_OBJECT(members) && members->u.object.len > 0) {
        buffer_append_text(out, "\nResult:\n");
        add_members(document, table, "", schema, MEMBERS_DEPTH);
        table_write(table, out);
        return;
    }
    buffer_append_text(out, "\nResult: ");
    if (YAJL_IS_OBJECT(members))
        buffer_append_text(out, "{}");
    else
        rpc_schema_type_text(document, schema, out);
    buffer_append_char(out, '\n');
}

static void describe_method(const struct rpc_document *document, yajl_val method,
                            struct buffer *out)
{
    _cleanup_buffer_ struct buffer params = BUFFER_INIT;
    const char *description = rpc_node_text(method, "description");

    append_params(document, method, &params);
    buffer_printf(out, "%s(%s)\n\n%s\n", or_nothing(rpc_node_text(method, "name")),
                  buffer_text(&params), or_nothing(rpc_node_text(method, "summary")));
    if (description)
        buffer_printf(out, "%s\n", description);
    describe_params(document, method, out);
    describe_result(document, method, out);
}

static int write_methods(const struct rpc_document *document, const char *name, bool json,
                         struct buffer *out, struct error *err)
{
    yajl_val method = name ? rpc_document_method(document, name) : NULL;

    if (!document->root)
        return error_set(err, -EOPNOTSUPP, "the server tells nothing of its methods");
    if (name && !method) {
        const char *near = rpc_document_suggest(document, name);
        error_set(err, -ENOENT, "there is no method '%s'", name);
        return near ? error_hint(err, "Did you mean '%s'?", near) : -ENOENT;
    }
    if (json) {
        tree_write(method ? method : document->root, TREE_PRETTY, out);
        buffer_append_char(out, '\n');
    } else if (method) {
        describe_method(document, method, out);
    } else {
        list_methods(document, out);
    }
    return 0;
}

static int run(struct cli *cli, const void *values, char *const *operands)
{
    const struct methods_options *options = values;
    _cleanup_rpc_document_ struct rpc_document document = RPC_DOCUMENT_INIT;
    _cleanup_rpc_remote_ struct rpc_remote *remote = NULL;
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    _cleanup_error_ struct error err = ERROR_INIT;
    bool json = text_equal(options->format, "json");

    int r = rpc_remote_open(cli, options->socket, false, NULL, NULL, &remote, &err);
    if (r == 0)
        r = rpc_document_fetch(remote, options->socket, DISCOVER_MILLISECONDS, &document, &err);
    if (r == 0)
        r = write_methods(&document, operands[0], json, &text, &err);
    return r < 0 ? cli_fail(&err) : cli_print(&text);
}

const struct command rpc_methods_command = {
    .name = "methods",
    .usage = "[OPTIONS] [METHOD]",
    .summary = "List the methods of the management socket, or describe one",
    .options = methods_groups,
    .values_size = sizeof(struct methods_options),
    .maximum_operands = 1,
    .complete = COMPLETE_METHODS,
    .run = run,
};
