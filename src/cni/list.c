/*
 * Configuration lists of the machine's administrator, and where plug-ins are.
 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "internal.h"

enum { LISTS_MAX = 1024 }; /* files of the folder that are looked at */

static const char *const versions[] = {"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"};

/* A name that stays in its folder. */
static bool is_plain(const char *type)
{
    return type[0] && type[0] != '.' && !strchr(type, '/') && strlen(type) <= TYPE_LENGTH_MAX;
}

/* The specification's: it becomes part of paths and rules. */
static bool is_network_name(const char *name)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";

    return name[0] && !strchr("_.-", name[0]) && strspn(name, allowed) == strlen(name);
}

static int check_version(struct cni_list *list, const char *source, struct error *err)
{
    for (size_t i = 0; list->cni_version && i < ARRAY_SIZE(versions); i++) {
        if (text_equal(versions[i], list->cni_version))
            return 0;
    }
    error_set(err, -EPROTONOSUPPORT, "%s: cniVersion: '%.32s' is not supported", source,
              list->cni_version ? list->cni_version : "");
    return error_hint(err, "write one of 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0"), -EPROTONOSUPPORT;
}

static int check_plugin(const char *raw, const char *source, size_t index, struct error *err)
{
    _cleanup_cni_plugin_ struct cni_plugin *plugin = NULL;
    int r = cni_plugin_parse(raw, strlen(raw), source, &plugin, err);

    if (r < 0)
        return error_context(err, "plugins[%zu]", index), r;
    if (!is_plain(plugin->type))
        return error_set(err, -EINVAL, "%s: plugins[%zu].type: '%.80s' is no name of a plug-in",
                         source, index, plugin->type);
    return 0;
}

/* A configuration of one plug-in, with what belongs to a list. */
static int make_list(struct cni_list *list, const char *text, size_t length, const char *source,
                     struct error *err)
{
    _cleanup_cni_plugin_ struct cni_plugin *plugin = NULL;
    _cleanup_buffer_ struct buffer raw = BUFFER_INIT;
    int r = cni_plugin_parse(text, length, source, &plugin, err);

    if (r < 0)
        return r;
    cni_plugin_write(plugin, &raw);
    list->plugins = xnew_array(char *, 2);
    list->plugins[list->plugins_count++] = buffer_steal(&raw);
    return 0;
}

static int check_list(struct cni_list *list, const char *source, struct error *err)
{
    int r = check_version(list, source, err);

    if (r == 0 && !is_network_name(list->name))
        r = error_set(err, -EINVAL,
                      "%s: name: '%.80s' is no network's: letters, digits and '_.-' are allowed",
                      source, list->name);
    if (r == 0 && list->plugins_count == 0)
        r = error_set(err, -EINVAL, "%s: plugins: there are none", source);
    for (size_t i = 0; r == 0 && i < list->plugins_count; i++)
        r = check_plugin(list->plugins[i], source, i, err);
    return r;
}

int cni_list_read(const char *text, size_t length, const char *source, struct cni_list **ret,
                  struct error *err)
{
    _cleanup_cni_list_ struct cni_list *list = NULL;
    int r = cni_list_parse(text, length, source, &list, err);

    if (r == 0 && !list->plugins && list->type)
        r = make_list(list, text, length, source, err);
    if (r == 0)
        r = check_list(list, source, err);
    if (r == 0)
        *ret = steal_ptr(list);
    return r;
}

static int read_file(const char *path, struct cni_list **ret, struct error *err)
{
    _cleanup_free_ char *text = NULL;
    size_t length = 0;
    int r = file_read_foreign(path, LIST_BYTES_MAX, &text, &length, err);

    return r < 0 ? r : cni_list_read(text, length, path, ret, err);
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static char **files_of(const char *folder)
{
    _cleanup_closedir_ DIR *dir = opendir(folder);
    char **names = NULL;
    struct dirent *entry;
    size_t count = 0;

    while (dir && count < LISTS_MAX && (entry = readdir(dir))) {
        if (!text_ends_with(entry->d_name, ".conflist") &&
            !text_ends_with(entry->d_name, ".conf") && !text_ends_with(entry->d_name, ".json"))
            continue;
        strv_append(&names, entry->d_name);
        count++;
    }
    if (names)
        qsort(names, count, sizeof(*names), compare);
    return names;
}

/* Lists of others that make no sense are theirs; the first one of the name counts, as elsewhere. */
int list_find(const struct cni_request *request, const char *wanted, struct cni_list **ret,
              struct error *err)
{
    if (wanted[0] == '/')
        return read_file(wanted, ret, err);
    _cleanup_strv_ char **names = files_of(request->conf_folder);
    for (char **name = names; name && *name; name++) {
        _cleanup_free_ char *path = xasprintf("%s/%s", request->conf_folder, *name);
        _cleanup_error_ struct error own = ERROR_INIT;
        _cleanup_cni_list_ struct cni_list *list = NULL;
        const bool by_file = text_equal(*name, wanted);
        int r = read_file(path, &list, &own);

        if (r < 0 && by_file)
            return error_move(err, &own), r;
        if (r < 0 || (!by_file && !text_equal(list->name, wanted)))
            continue;
        *ret = steal_ptr(list);
        return 0;
    }
    error_set(err, -ENOENT, "no configuration list '%.128s' in %s", wanted, request->conf_folder);
    error_hint(err, "write one there, or name its file: -o conflist=FILE");
    return -ENOENT;
}

int list_find_plugin(const struct cni_request *request, const char *type, char **ret,
                     struct error *err)
{
    _cleanup_free_ char *folders = strv_join(request->plugin_folders, ", ");

    for (size_t i = 0; i < request->plugin_folders_count; i++) {
        _cleanup_free_ char *path = xasprintf("%s/%s", request->plugin_folders[i], type);

        if (access(path, X_OK) == 0) {
            *ret = steal_ptr(path);
            return 0;
        }
    }
    error_set(err, -ENOENT, "there is no plug-in '%s' in %s", type, folders);
    error_hint(err, "install it, or see pluginFolders in cloched.conf(5)");
    return -ENOENT;
}

bool list_is_capable(const struct cni_list *list, const char *capability)
{
    for (size_t i = 0; i < list->plugins_count; i++) {
        const char *raw = list->plugins[i];
        _cleanup_cni_plugin_ struct cni_plugin *plugin = NULL;

        if (cni_plugin_parse(raw, strlen(raw), "plug-in", &plugin, NULL) == 0 &&
            text_equal(json_string_map_get(plugin->capabilities, capability), "true"))
            return true;
    }
    return false;
}

bool list_knows_check(const struct cni_list *list)
{
    return !text_starts_with(list->cni_version, "0.3.");
}
