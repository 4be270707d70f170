#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include <base/alloc.h>
#include <base/file.h>

#include "sysctl.h"

enum { VALUE_MAX = 64 }; /* bytes */

int sysctl_set(const char *path, struct error *err)
{
    _cleanup_free_ char *value = NULL;
    int r;

    r = file_read_at(AT_FDCWD, path, VALUE_MAX, &value, NULL, err);
    if (r < 0)
        return r;
    if (strcmp(value, "1\n") == 0)
        return 0;
    return file_write_existing_at(AT_FDCWD, path, "1", 1, err);
}

int sysctl_set_for_link(const char *family, const char *link, const char *name, struct error *err)
{
    _cleanup_free_ char *path = xasprintf("/proc/sys/net/%s/conf/%s/%s", family, link, name);

    return sysctl_set(path, err);
}

int sysctl_disable_ipv6(const char *link, struct error *err)
{
    _cleanup_error_ struct error why = ERROR_INIT;
    int r;

    r = sysctl_set_for_link("ipv6", link, "disable_ipv6", &why);
    return r < 0 && r != -ENOENT ? error_move(err, &why) : 0;
}
