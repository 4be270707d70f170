#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/text.h>

#include "preserved.h"
#include "seal.h"

enum {
    PRESERVE_FDS_MAX = 1 << 16,
    FIRST_FD = 3,
};

/* *ret_done: there can be no open ones from here on. */
static int put_stand_in(struct preserved *preserved, int model_fd, int fd, bool *ret_done,
                        struct error *err)
{
    int placed = fcntl(model_fd, F_DUPFD_CLOEXEC, fd);

    /* Above the limit of open files. */
    *ret_done = placed < 0 && (errno == EINVAL || errno == EMFILE);
    if (placed < 0)
        return *ret_done ? 0 : error_errno(err, errno, "keep descriptor %d free", fd);
    if (placed != fd) {
        close(placed);
        return error_set(err, -EBUSY, "descriptor %d was opened meanwhile", fd);
    }
    preserved->absent[preserved->absent_count++] = fd;
    return 0;
}

static int put_stand_ins(struct preserved *preserved, struct error *err)
{
    bool done = false;
    int r = 0;
    int model_fd = eventfd(0, EFD_CLOEXEC); /* of nothing: harmless wherever it would end up */
    int last = FIRST_FD + (int)preserved->count;

    if (model_fd < 0)
        return error_errno(err, errno, "eventfd");
    /* It may lie among them itself. */
    int high_fd = fcntl(model_fd, F_DUPFD_CLOEXEC, last);
    if (high_fd >= 0) {
        close(model_fd);
        model_fd = high_fd;
    }
    for (int fd = FIRST_FD; r == 0 && !done && fd < last; fd++) {
        if (fd == model_fd)
            preserved->absent[preserved->absent_count++] = fd;
        else if (fcntl(fd, F_GETFD) < 0)
            r = put_stand_in(preserved, model_fd, fd, &done, err);
    }
    if (model_fd >= last)
        close(model_fd);
    return r;
}

static bool is_complete(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (fcntl((int)(FIRST_FD + i), F_GETFD) < 0)
            return false;
    }
    return true;
}

int preserved_init(struct preserved *preserved, unsigned preserve_fds, unsigned listen_fds,
                   char ***warnings, struct error *err)
{
    *preserved = (struct preserved){0};
    if (preserve_fds > PRESERVE_FDS_MAX || listen_fds > PRESERVE_FDS_MAX)
        return error_set(err, -EINVAL, "%s: more than %d",
                         listen_fds > PRESERVE_FDS_MAX ? "LISTEN_FDS" : "--preserve-fds",
                         PRESERVE_FDS_MAX);
    preserved->count = preserve_fds + listen_fds;
    seal_keep_off(FIRST_FD + (int)preserved->count);
    if (is_complete(preserved->count))
        return 0;
    preserved->absent = xnew_array(int, preserved->count);
    int r = put_stand_ins(preserved, err);
    if (r < 0) {
        preserved_finish(preserved);
        return r;
    }
    int first = preserved->absent_count ? preserved->absent[0] : -1;
    if (first >= 0)
        strv_take(warnings,
                  xasprintf("%s: descriptor %d is not open",
                            first < FIRST_FD + (int)listen_fds ? "LISTEN_FDS" : "--preserve-fds",
                            first));
    return 0;
}

void preserved_finish(struct preserved *preserved)
{
    for (size_t i = 0; i < preserved->absent_count; i++)
        close(preserved->absent[i]);
    free(preserved->absent);
    *preserved = (struct preserved){0};
}

void preserved_release(struct preserved *preserved)
{
    unsigned count = preserved->count;

    preserved_finish(preserved);
    for (unsigned i = 0; i < count; i++)
        fcntl((int)(FIRST_FD + i), F_SETFD, 0);
    preserved->count = count;
}
