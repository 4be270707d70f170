/*
 * The plug-ins of a list, one after the other: each gets the result of the one before.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

#include "internal.h"

enum verb { ADD, CHECK, DEL };

static const char *const verbs[] = {[ADD] = "ADD", [CHECK] = "CHECK", [DEL] = "DEL"};

struct chain {
    const struct cni_request *request;
    const struct cni_attachment *attachment;
    struct cni_list *list;
    const char *netns;
    enum verb verb;
};

/* --- what a plug-in is told ------------------------------------------------------------------- */

static bool can(const struct cni_plugin *plugin, const char *capability)
{
    return text_equal(json_string_map_get(plugin->capabilities, capability), "true");
}

/* The part of what is wanted that this plug-in says it can do. */
static char *runtime_config(const struct cni_plugin *plugin, const struct cni_runtime_config *all)
{
    struct cni_runtime_config part = {0};
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;

    if (!all || !plugin->capabilities)
        return NULL;
    if (can(plugin, "portMappings")) {
        part.port_mappings = all->port_mappings;
        part.port_mappings_count = all->port_mappings_count;
    }
    if (can(plugin, "ips")) {
        part.ips = all->ips;
        part.ips_count = all->ips_count;
    }
    if (can(plugin, "aliases")) {
        part.aliases = all->aliases;
        part.aliases_count = all->aliases_count;
    }
    part.mac = can(plugin, "mac") ? all->mac : NULL;
    part.dns = can(plugin, "dns") ? all->dns : NULL;
    if (!part.port_mappings && !part.ips && !part.aliases && !part.mac && !part.dns)
        return NULL;
    cni_runtime_config_write(&part, &text);
    return buffer_steal(&text);
}

static void set(char **field, char *value)
{
    free(*field);
    *field = value;
}

static int configuration(const struct chain *chain, struct cni_plugin *plugin, const char *previous,
                         struct buffer *out)
{
    set(&plugin->name, xstrdup(chain->list->name));
    set(&plugin->cni_version, xstrdup(chain->list->cni_version));
    set(&plugin->runtime_config, runtime_config(plugin, chain->attachment->runtime_config));
    set(&plugin->prev_result, xstrdup(previous));
    cni_plugin_write(plugin, out);
    return 0;
}

/* Where no plug-in has the capability, those that know CNI_ARGS (host-local, static, tuning) may.
 */
static char *arguments(const struct chain *chain)
{
    const struct cni_runtime_config *wanted = chain->attachment->runtime_config;
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;

    buffer_append_text(&text, "IgnoreUnknown=1");
    if (wanted && wanted->ips_count > 0 && !list_is_capable(chain->list, "ips")) {
        _cleanup_free_ char *joined = strv_join(wanted->ips, ",");
        buffer_printf(&text, ";IP=%s", joined);
    }
    if (wanted && wanted->mac && !list_is_capable(chain->list, "mac"))
        buffer_printf(&text, ";MAC=%s", wanted->mac);
    return buffer_steal(&text);
}

static char **environment(const struct chain *chain)
{
    const struct cni_attachment *attachment = chain->attachment;
    const char *path = getenv("PATH");
    char **list = NULL;

    strv_take(&list, xasprintf("CNI_COMMAND=%s", verbs[chain->verb]));
    strv_take(&list, xasprintf("CNI_CONTAINERID=%s", attachment->container));
    strv_take(&list, xasprintf("CNI_NETNS=%s", chain->netns));
    strv_take(&list, xasprintf("CNI_IFNAME=%s", attachment->link));
    _cleanup_free_ char *args = arguments(chain);
    strv_take(&list, xasprintf("CNI_ARGS=%s", args));
    _cleanup_free_ char *folders = strv_join(chain->request->plugin_folders, ":");
    strv_take(&list, xasprintf("CNI_PATH=%s", folders));
    strv_take(&list, xasprintf("PATH=%s", path ? path : "/usr/sbin:/usr/bin:/sbin:/bin"));
    return list;
}

/* --- what it says ----------------------------------------------------------------------------- */

/* A plug-in tells its errors on standard output; one that does not is told by its end. */
static int told_error(const struct buffer *output, int r, struct error *err)
{
    _cleanup_cni_error_ struct cni_error *told = NULL;

    if (r != -EREMOTEIO ||
        cni_error_parse(buffer_text(output), output->length, "error", &told, NULL) < 0)
        return r;
    text_make_harmless(told->msg, "");
    text_make_harmless(told->details, "");
    error_finish(err);
    *err = (struct error)ERROR_INIT;
    return error_set(err, r, "%s%s%s (code %u)",
                     text_empty(told->msg) ? "it does not say why" : told->msg,
                     text_empty(told->details) ? "" : "; ",
                     text_empty(told->details) ? "" : told->details, told->code);
}

static int check_result(const struct buffer *output, struct error *err)
{
    _cleanup_cni_result_ struct cni_result *result = NULL;
    int r = cni_result_parse(buffer_text(output), output->length, "result", &result, err);

    return r;
}

static int call(const struct chain *chain, size_t index, const char *previous,
                struct buffer *output, struct error *err)
{
    const char *raw = chain->list->plugins[index];
    _cleanup_cni_plugin_ struct cni_plugin *plugin = NULL;
    _cleanup_buffer_ struct buffer config = BUFFER_INIT;
    _cleanup_free_ char *path = NULL;
    _cleanup_strv_ char **variables = environment(chain);
    struct plugin_call what = {.environment = variables,
                               .limit_seconds = chain->request->time_limit_seconds};
    int r = cni_plugin_parse(raw, strlen(raw), "plug-in", &plugin, err);

    if (r == 0)
        r = list_find_plugin(chain->request, plugin->type, &path, err);
    if (r < 0)
        return error_context(err, "network %s", chain->attachment->network), r;
    configuration(chain, plugin, previous, &config);
    what.path = path;
    what.input = buffer_text(&config);
    r = plugin_run(&what, output, err);
    if (r < 0)
        r = told_error(output, r, err);
    else if (chain->verb == ADD)
        r = check_result(output, err);
    if (r < 0)
        error_context(err, "network %s: plug-in %s: %s", chain->attachment->network, plugin->type,
                      verbs[chain->verb]);
    return r;
}

/* --- chains ----------------------------------------------------------------------------------- */

static int open_chain(struct chain *chain, const struct cni_request *request,
                      const struct cni_attachment *attachment, const char *netns, enum verb verb,
                      struct error *err)
{
    *chain = (struct chain){request, attachment, NULL, netns, verb};
    if (!attachment->list)
        return error_set(err, -EBADMSG, "network %s: no list is on record", attachment->network);
    return cni_list_read(attachment->list, strlen(attachment->list), attachment->network,
                         &chain->list, err);
}

int chain_add(const struct cni_request *request, struct cni_attachment *attachment,
              const char *netns, struct error *err)
{
    _cleanup_free_ char *previous = NULL;
    struct chain chain;
    int r = open_chain(&chain, request, attachment, netns, ADD, err);

    for (size_t i = 0; r == 0 && i < chain.list->plugins_count; i++) {
        _cleanup_buffer_ struct buffer output = BUFFER_INIT;

        r = call(&chain, i, previous, &output, err);
        if (r == 0) {
            free(previous);
            previous = buffer_steal(&output);
        }
    }
    if (r == 0)
        set(&attachment->result, steal_ptr(previous));
    cni_list_free(chain.list);
    return r;
}

int chain_remove(const struct cni_request *request, const struct cni_attachment *attachment,
                 const char *netns, struct error *err)
{
    struct chain chain;
    int r = open_chain(&chain, request, attachment, netns, DEL, err);
    const char *previous = r == 0 && list_knows_check(chain.list) ? attachment->result : NULL;

    for (size_t i = r == 0 ? chain.list->plugins_count : 0; i > 0; i--) {
        _cleanup_buffer_ struct buffer output = BUFFER_INIT;
        _cleanup_error_ struct error own = ERROR_INIT;
        int one = call(&chain, i - 1, previous, &output, &own);

        if (one < 0 && r == 0)
            error_move(err, &own);
        r = r == 0 ? one : r;
    }
    cni_list_free(chain.list);
    return r;
}

int chain_check(const struct cni_request *request, const struct cni_attachment *attachment,
                const char *netns, struct error *err)
{
    struct chain chain;
    int r = open_chain(&chain, request, attachment, netns, CHECK, err);
    const bool asks = r == 0 && list_knows_check(chain.list) && !chain.list->disable_check;

    for (size_t i = 0; asks && r == 0 && i < chain.list->plugins_count; i++) {
        _cleanup_buffer_ struct buffer output = BUFFER_INIT;

        r = call(&chain, i, attachment->result, &output, err);
    }
    cni_list_free(chain.list);
    return r;
}
