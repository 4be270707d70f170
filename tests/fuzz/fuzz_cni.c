/*
 * Documents of CNI: configuration lists of the administrator, results and errors of plug-ins, and
 * the answer of the child that calls them. The first byte says which.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <cni/cni.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_list(const char *text, size_t length)
{
    _cleanup_cni_list_ struct cni_list *list = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;

    if (cni_list_read(text, length, "list", &list, &err) < 0)
        return;
    if (list->plugins_count == 0 || !list->name[0] || strpbrk(list->name, "/ ;"))
        abort();
    for (size_t i = 0; i < list->plugins_count; i++) {
        _cleanup_cni_plugin_ struct cni_plugin *plugin = NULL;

        /* It becomes part of a path. */
        if (cni_plugin_parse(list->plugins[i], strlen(list->plugins[i]), "plug-in", &plugin, &err) <
                0 ||
            strchr(plugin->type, '/') || plugin->type[0] == '.')
            abort();
    }
}

static void read_result(const char *text, size_t length)
{
    _cleanup_cni_result_ struct cni_result *result = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;
    struct cni_addresses found;

    if (cni_result_parse(text, length, "result", &result, &err) < 0 ||
        cni_result_read(result, "eth0", &found, &err) < 0)
        return;
    if (found.prefix > 32 || found.prefix6 > 128)
        abort();
    for (size_t i = 0; result->dns && i < result->dns->nameservers_count; i++) {
        if (strpbrk(result->dns->nameservers[i], "\n "))
            abort();
    }
    for (size_t i = 0; result->dns && i < result->dns->search_count; i++) {
        if (strpbrk(result->dns->search[i], "\n "))
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    _cleanup_cni_error_ struct cni_error *error = NULL;
    _cleanup_cni_answer_ struct cni_answer *answer = NULL;

    if (size == 0)
        return 0;
    _cleanup_free_ char *text = xstrndup((const char *)data + 1, size - 1);
    const size_t length = strlen(text);
    switch (data[0]) {
    case 'l':
        read_list(text, length);
        break;
    case 'r':
        read_result(text, length);
        break;
    case 'e':
        (void)cni_error_parse(text, length, "error", &error, &err);
        break;
    case 'a':
        (void)cni_answer_parse(text, length, "answer", &answer, &err);
        break;
    default:
        break;
    }
    return 0;
}
