#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "sysctl.h"

enum { VALUE_MAX = 64 }; /* bytes */

int sysctl_set(const char *path, const char *value, struct error *err)
{
    _cleanup_free_ char *text = NULL;
    int r;

    r = file_read_at(AT_FDCWD, path, VALUE_MAX, &text, NULL, err);
    if (r < 0)
        return r;
    text[strcspn(text, "\n")] = '\0';
    if (text_equal(text, value))
        return 0;
    return file_write_existing_at(AT_FDCWD, path, value, strlen(value), err);
}

int sysctl_set_for_link(const char *family, const char *link, const char *name, const char *value,
                        struct error *err)
{
    _cleanup_free_ char *path = xasprintf("/proc/sys/net/%s/conf/%s/%s", family, link, name);

    return sysctl_set(path, value, err);
}

int sysctl_disable_ipv6(const char *link, struct error *err)
{
    _cleanup_error_ struct error why = ERROR_INIT;
    int r;

    r = sysctl_set_for_link("ipv6", link, "disable_ipv6", "1", &why);
    return r < 0 && r != -ENOENT ? error_move(err, &why) : 0;
}

int sysctl_enable_ipv6(const char *link, struct error *err)
{
    int r;

    r = sysctl_set_for_link("ipv6", link, "accept_ra", "0", err);
    if (r == 0)
        r = sysctl_set_for_link("ipv6", link, "autoconf", "0", err);
    if (r == 0)
        r = sysctl_set_for_link("ipv6", link, "disable_ipv6", "0", err);
    return r;
}

static void keep_listening_to_routers(void)
{
    _cleanup_closedir_ DIR *links = opendir("/proc/sys/net/ipv6/conf");
    const struct dirent *entry;

    while (links && (entry = readdir(links))) {
        _cleanup_free_ char *path = xasprintf("%s/accept_ra", entry->d_name);
        _cleanup_free_ char *text = NULL;

        if (file_read_at(dirfd(links), path, VALUE_MAX, &text, NULL, NULL) == 0 && text[0] == '1')
            (void)file_write_existing_at(dirfd(links), path, "2", 1, NULL);
    }
}

bool sysctl_is_on(const char *path)
{
    _cleanup_free_ char *text = NULL;

    return file_read_at(AT_FDCWD, path, VALUE_MAX, &text, NULL, NULL) >= 0 && text[0] == '1';
}

char **sysctl_links_on(const char *folder, const char *name)
{
    _cleanup_closedir_ DIR *links = opendir(folder);
    const struct dirent *entry;
    char **found = NULL;

    while (links && (entry = readdir(links))) {
        _cleanup_free_ char *path = xasprintf("%s/%s/%s", folder, entry->d_name, name);

        if (entry->d_name[0] != '.' && !text_equal(entry->d_name, "all") &&
            !text_equal(entry->d_name, "default") && sysctl_is_on(path))
            strv_append(&found, entry->d_name);
    }
    return found;
}

int sysctl_forward_ipv6(struct error *err)
{
    if (sysctl_is_on(SYSCTL_FORWARD_IPV6))
        return 0;
    keep_listening_to_routers();
    return sysctl_set(SYSCTL_FORWARD_IPV6, "1", err);
}
