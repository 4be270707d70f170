#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "bundle.h"

enum { RESOLV_CONF_MAX = 64 * 1024 };

static const char machine_resolv_conf[] = "/etc/resolv.conf";
/* What systemd-resolved's stub (127.0.0.53) asks itself. */
static const char resolved_resolv_conf[] = "/run/systemd/resolve/resolv.conf";

/* The address of a "nameserver" line, else NULL. Owned by the caller. */
static char *nameserver_of(const char *line)
{
    char address[64];

    return sscanf(line, " nameserver %63s", address) == 1 ? xstrdup(address) : NULL;
}

static bool is_loopback(const char *address)
{
    return text_starts_with(address, "127.") || text_equal(address, "::1");
}

char *bundle_resolv_conf(const char *machine)
{
    _cleanup_strv_ char **lines = strv_split(machine, '\n');
    struct buffer out = BUFFER_INIT;
    size_t servers = 0;

    for (size_t i = 0; lines && lines[i]; i++) {
        _cleanup_free_ char *server = nameserver_of(lines[i]);
        if ((server && is_loopback(server)) || !lines[i][0])
            continue;
        servers += server != NULL;
        buffer_printf(&out, "%s\n", lines[i]);
    }
    if (servers == 0)
        buffer_append_text(&out, "nameserver 8.8.8.8\nnameserver 8.8.4.4\n");
    return buffer_steal(&out);
}

static char *read_or_empty(const char *path)
{
    char *text = NULL;

    if (file_read_at(AT_FDCWD, path, RESOLV_CONF_MAX, &text, NULL, NULL) < 0)
        return xstrdup("");
    return text;
}

static char *resolv_conf_for(bool own_network)
{
    _cleanup_free_ char *machine = read_or_empty(machine_resolv_conf);

    if (!own_network)
        return steal_ptr(machine);
    if (strstr(machine, "nameserver 127.0.0.53")) {
        free(machine);
        machine = read_or_empty(resolved_resolv_conf);
    }
    return bundle_resolv_conf(machine);
}

static char *hosts_for(const struct api_container_spec *effective, const struct in_addr *address)
{
    struct buffer out = BUFFER_INIT;
    char text[INET_ADDRSTRLEN];

    buffer_append_text(&out, "127.0.0.1\tlocalhost\n"
                             "::1\tlocalhost ip6-localhost ip6-loopback\n"
                             "fe00::0\tip6-localnet\n"
                             "ff00::0\tip6-mcastprefix\n"
                             "ff02::1\tip6-allnodes\n"
                             "ff02::2\tip6-allrouters\n");
    if (address && inet_ntop(AF_INET, address, text, sizeof(text)))
        buffer_printf(&out, "%s\t%s\n", text, effective->hostname);
    return buffer_steal(&out);
}

static int write_file(int directory_fd, const char *name, const char *text, struct error *err)
{
    /* The container does not run: nobody has the old one. */
    _cleanup_close_ int fd =
        openat(directory_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0)
        return error_errno(err, errno, "create %s", name);
    int r = file_write_all(fd, text, strlen(text));
    return r < 0 ? error_errno(err, -r, "write %s", name) : 0;
}

int bundle_write_files(int directory_fd, const struct api_container_spec *effective,
                       const struct in_addr *address, struct error *err)
{
    bool host = text_equal(effective->network_mode, "host");
    _cleanup_free_ char *hosts = host ? read_or_empty("/etc/hosts") : hosts_for(effective, address);
    _cleanup_free_ char *hostname = xasprintf("%s\n", effective->hostname);
    _cleanup_free_ char *resolv_conf = resolv_conf_for(!host);
    int r;

    r = write_file(directory_fd, "hosts", hosts, err);
    if (r == 0)
        r = write_file(directory_fd, "hostname", hostname, err);
    if (r == 0)
        r = write_file(directory_fd, "resolv.conf", resolv_conf, err);
    return r;
}
