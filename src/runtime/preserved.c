#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/text.h>

#include "library_worker.h"
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

static bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0 && !library_worker_is_report(fd);
}

/* Behind the last one that is open there is nothing to keep free. *ret_absent: the first that is
 * not open; -1. */
static unsigned count_to_last(unsigned count, int *ret_absent)
{
    unsigned end = 0;

    *ret_absent = -1;
    for (unsigned i = 0; i < count; i++) {
        if (is_open((int)(FIRST_FD + i)))
            end = i + 1;
        else if (*ret_absent < 0)
            *ret_absent = (int)(FIRST_FD + i);
    }
    return end;
}

int preserved_init(struct preserved *preserved, unsigned preserve_fds, unsigned listen_fds,
                   char ***warnings, struct error *err)
{
    int absent, end;

    *preserved = (struct preserved){0};
    if (preserve_fds > PRESERVE_FDS_MAX || listen_fds > PRESERVE_FDS_MAX)
        return error_set(err, -EINVAL, "%s: more than %d",
                         listen_fds > PRESERVE_FDS_MAX ? "LISTEN_FDS" : "--preserve-fds",
                         PRESERVE_FDS_MAX);
    if (preserve_fds + listen_fds == 0)
        return 0;
    seal_keep_off(FIRST_FD + (int)(preserve_fds + listen_fds));
    preserved->count = count_to_last(preserve_fds + listen_fds, &absent);
    end = FIRST_FD + (int)preserved->count;
    if (absent >= 0)
        strv_take(warnings,
                  xasprintf("%s: descriptor %d is not open",
                            absent < FIRST_FD + (int)listen_fds ? "LISTEN_FDS" : "--preserve-fds",
                            absent));
    int r = library_worker_keep_off(end, err);
    if (r < 0 || absent < 0 || absent >= end)
        return r;
    preserved->absent = xnew_array(int, preserved->count);
    r = put_stand_ins(preserved, err);
    if (r < 0)
        preserved_finish(preserved);
    return r;
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
