#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/rpc.h>

#include "progress.h"

enum {
    PATIENCE_SECONDS_10TH = 3, /* what is done by then needs no line */
    BAR_WIDTH = 24,
};

void progress_start(struct progress *progress, const char *what, int fd, bool quiet)
{
    struct stat status;

    *progress = (struct progress){.what = quiet || !isatty(STDERR_FILENO) ? NULL : what, .fd = -1};
    clock_gettime(CLOCK_MONOTONIC, &progress->started);
    if (fd < 0 || fstat(fd, &status) < 0 || !S_ISREG(status.st_mode))
        return;
    progress->fd = fd;
    progress->total = (uint64_t)status.st_size;
}

static double seconds_since(const struct timespec *started)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - started->tv_sec) + (double)(now.tv_nsec - started->tv_nsec) / 1e9;
}

void progress_take(const struct rpc_progress *told, void *context)
{
    struct progress *progress = context;

    progress->steps_done = told->done;
    progress->steps = told->has_total && told->done <= told->total ? told->total : 0;
}

/* "  [######........]  42%", or nothing. */
static void show_bar(const struct progress *progress)
{
    if (!progress->steps)
        return;
    double part = (double)progress->steps_done / (double)progress->steps;
    int full = (int)(part * BAR_WIDTH);
    fputs("  [", stderr);
    for (int i = 0; i < BAR_WIDTH; i++)
        fputc(i < full ? '#' : '.', stderr);
    fprintf(stderr, "] %3d%%", (int)(part * 100));
}

void progress_tick(void *context)
{
    static const char *const turns[] = {"⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"};
    struct progress *progress = context;

    if (!progress->what)
        return;
    double seconds = seconds_since(&progress->started);
    if (seconds < PATIENCE_SECONDS_10TH / 10.0)
        return;
    off_t position = progress->fd >= 0 ? lseek(progress->fd, 0, SEEK_CUR) : 0;
    _cleanup_free_ char *done = position > 0 ? text_from_size((uint64_t)position) : NULL;
    _cleanup_free_ char *total = progress->total ? text_from_size(progress->total) : NULL;
    fprintf(stderr, "\r\033[K%s %s%s%s%s%s", turns[progress->turns++ % ARRAY_SIZE(turns)],
            progress->what, done ? "  " : "", done ? done : "", done && total ? "/" : "",
            done && total ? total : "");
    show_bar(progress);
    fprintf(stderr, "  %.1fs", seconds);
    fflush(stderr);
    progress->shown = true;
}

void progress_end(struct progress *progress)
{
    if (progress->shown)
        fprintf(stderr, "\r\033[K");
    progress->shown = false;
}
