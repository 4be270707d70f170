#include "cid_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>

int cid_file_open(struct cid_file *file, struct error *err)
{
    if (!file->path)
        return 0;
    file->fd = open(file->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (file->fd >= 0)
        return 0;
    if (errno == EEXIST)
        return error_set(err, -EEXIST,
                         "container ID file found, make sure the other container isn't running or "
                         "delete %s",
                         file->path);
    return error_errno(err, errno, "failed to create the container ID file %s", file->path);
}

int cid_file_finish(struct cid_file *file, const char *id, int result, struct error *err)
{
    if (file->fd < 0)
        return result;
    int r = id ? file_write_all(file->fd, id, strlen(id)) : 0;
    close_fd(file->fd);
    file->fd = -1;
    if (!id)
        unlink(file->path);
    return r < 0 ? error_errno(err, -r, "write the container ID file %s", file->path) : result;
}
