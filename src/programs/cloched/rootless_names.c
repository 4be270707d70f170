#include "rootless_names.h"

#include <fcntl.h>
#include <string.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/file.h>
#include <base/log.h>
#include <base/text.h>

enum { RESOLV_CONF_MAX = 64 * 1024 };

static bool is_loopback_server(const char *line)
{
    static const char word[] = "nameserver";

    if (!text_starts_with(line, word))
        return false;
    const char *address = line + strlen(word);
    address += strspn(address, " \t");
    return text_starts_with(address, "127.") || text_starts_with(address, "::1");
}

char *rootless_names_write(const struct instance *instance)
{
    _cleanup_free_ char *text = NULL;
    _cleanup_buffer_ struct buffer changed = BUFFER_INIT;
    _cleanup_error_ struct error err = ERROR_INIT;
    bool differs = false;

    if (file_read_at(AT_FDCWD, "/etc/resolv.conf", RESOLV_CONF_MAX, &text, NULL, NULL) < 0)
        return NULL;
    _cleanup_strv_ char **lines = strv_split(text, '\n');
    for (char **line = lines; line && *line; line++) {
        const bool loopback = is_loopback_server(*line);

        differs = differs || loopback;
        buffer_printf(&changed, "%s\n", loopback ? "nameserver " ROOTLESS_NAME_SERVER : *line);
    }
    if (!differs)
        return NULL;
    char *path = xasprintf("%s/resolv.conf", instance->run);
    if (file_replace_at(AT_FDCWD, path, changed.data, changed.length, 0644, &err) == 0)
        return path;
    log_failure(LOG_WARNING, &err, "containers and downloads find no names");
    free(path);
    return NULL;
}
