#include "output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/alloc.h>

int output_open(const char *path, const char *verb, struct output *target, struct error *err)
{
    struct stat status;

    *target = (struct output){.fd = -1};
    if (!path) {
        if (isatty(STDOUT_FILENO))
            return error_set(err, -EINVAL,
                             "cowardly refusing to %s to a terminal: use -o, or redirect", verb);
        target->fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
        return target->fd < 0 ? error_errno(err, errno, "standard output") : 0;
    }
    if (stat(path, &status) == 0 && !S_ISREG(status.st_mode)) {
        target->fd = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
    } else {
        target->path = path;
        target->temporary = xasprintf("%s.XXXXXX", path);
        target->fd = mkostemp(target->temporary, O_CLOEXEC);
        mode_t mask = umask(0);
        umask(mask);
        if (target->fd >= 0)
            fchmod(target->fd, 0666 & ~mask);
    }
    return target->fd < 0 ? error_errno(err, errno, "create %s", path) : 0;
}

int output_close(struct output *target, int r, struct error *err)
{
    if (target->temporary && r >= 0 && rename(target->temporary, target->path) < 0)
        r = error_errno(err, errno, "rename %s to %s", target->temporary, target->path);
    if (target->temporary && r < 0 && target->fd >= 0)
        unlink(target->temporary);
    close_fd(target->fd);
    free(target->temporary);
    return r;
}
