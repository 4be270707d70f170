/* --chown: builder/dockerfile/internals_linux.go of moby. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "building.h"

enum { ACCOUNTS_MAX = 1024 * 1024 }; /* bytes of passwd or group */

/* The third field of the line whose first one is the name. */
static int find_number(const char *accounts, const char *name, uint32_t *ret)
{
    size_t length = strlen(name);

    for (const char *line = accounts; line && *line;) {
        const char *end = strchr(line, '\n');
        if (strncmp(line, name, length) == 0 && line[length] == ':') {
            const char *number = strchr(line + length + 1, ':');
            size_t digits = number ? strspn(number + 1, "0123456789") : 0;
            _cleanup_free_ char *text = digits ? xstrndup(number + 1, digits) : NULL;
            uint64_t value;
            if (text && text_to_u64(text, 0, UINT32_MAX - 1, &value) == 0) {
                *ret = (uint32_t)value;
                return 0;
            }
        }
        line = end ? end + 1 : NULL;
    }
    return -ENOENT;
}

static int look_up(int root_fd, const char *path, const char *what, const char *name, uint32_t *ret,
                   struct error *err)
{
    _cleanup_free_ char *accounts = NULL;
    uint64_t number;
    struct stat status;

    if (text_to_u64(name, 0, UINT32_MAX - 1, &number) == 0) {
        *ret = (uint32_t)number;
        return 0;
    }
    _cleanup_close_ int fd = file_open_in_root(root_fd, path, O_RDONLY | O_NONBLOCK, 0);
    if (fd < 0 || fstat(fd, &status) < 0 || !S_ISREG(status.st_mode))
        return error_set(err, -ENOENT, "can't find %s: there is no %s in the image", what, path);
    int r = file_read_fd(fd, ACCOUNTS_MAX, &accounts, NULL, err);
    if (r < 0)
        return error_context(err, "%s", path), r;
    if (!name[0] || find_number(accounts, name, ret) < 0)
        return error_set(err, -ENOENT, "can't find %s %s: no such %s: %s", what, name,
                         text_equal(what, "uid for user") ? "user" : "group", name);
    return 0;
}

int owner_find(int root_fd, const char *text, struct owner *ret, struct error *err)
{
    const char *colon = strchr(text, ':');
    _cleanup_free_ char *user = colon ? xstrndup(text, (size_t)(colon - text)) : xstrdup(text);
    int r = look_up(root_fd, "/etc/passwd", "uid for user", user, &ret->uid, err);

    if (r == 0)
        r = look_up(root_fd, "/etc/group", "gid for group", colon ? colon + 1 : user, &ret->gid,
                    err);
    if (r < 0)
        error_context(err, "unable to convert uid/gid chown string to host mapping");
    return r;
}
