/*
 * Scope-bound ownership: variables that release themselves, and explicit hand-over.
 *
 *     _cleanup_free_ char *name = xasprintf("%s.tmp", path);
 *     _cleanup_close_ int fd = open(...);
 *     ...
 *     *ret_fd = steal_fd(&fd);
 */
#ifndef BASE_CLEANUP_H
#define BASE_CLEANUP_H

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define _cleanup_(release) __attribute__((cleanup(release)))
#define _printf_(text, first) __attribute__((format(printf, text, first)))
#define _unused_ __attribute__((unused))
/* Of large variables that are filled before they are read: the compiler does not clear them first.
 */
#define _uninitialized_ __attribute__((uninitialized))

/* Keeps errno, so that it can stand between a failure and its report. fd < 0 is nothing. */
static inline void close_fd(int fd)
{
    if (fd >= 0) {
        int saved = errno;
        close(fd);
        errno = saved;
    }
}

static inline void cleanup_free_p(void *p)
{
    free(*(void **)p);
}

static inline void cleanup_close_p(const int *fd)
{
    close_fd(*fd);
}

static inline void cleanup_fclose_p(FILE **file)
{
    if (*file)
        fclose(*file);
}

static inline void cleanup_closedir_p(DIR **dir)
{
    if (*dir)
        closedir(*dir);
}

#define _cleanup_free_ _cleanup_(cleanup_free_p)
#define _cleanup_close_ _cleanup_(cleanup_close_p)
#define _cleanup_fclose_ _cleanup_(cleanup_fclose_p)
#define _cleanup_closedir_ _cleanup_(cleanup_closedir_p)

/* Takes the value out of an owning variable; the variable no longer owns anything. */
#define steal_ptr(pointer)                                                                         \
    ({                                                                                             \
        __typeof__(pointer) *steal_at_ = &(pointer);                                               \
        __typeof__(pointer) stolen_ = *steal_at_;                                                  \
        *steal_at_ = NULL;                                                                         \
        stolen_;                                                                                   \
    })

static inline int steal_fd(int *fd)
{
    int stolen = *fd;
    *fd = -1;
    return stolen;
}

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

#endif
