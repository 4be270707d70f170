/*
 * The engine's side of cloche-image: starting a worker and reading what it says. Nothing here
 * parses archives, and nothing here links an archive or compression library.
 *
 *     image_worker_start()    any thread; blocks for a spawn (under a millisecond)
 *     ...poll image_worker_fd() for reading...
 *     image_worker_receive()  per readiness, never blocks, until it returns IMAGE_WORKER_DONE
 *     image_worker_free()     kills it if it still runs, and reaps it
 *
 * or image_worker_run() on a thread of its own, which does all of it and blocks until the end.
 */
#ifndef IMAGE_WORKER_H
#define IMAGE_WORKER_H

#include <stdbool.h>

#include <base/error.h>
#include <base/process.h>
#include <schema/image_worker.h>

enum {
    IMAGE_WORKER_PROTOCOL = 1,
    IMAGE_WORKER_LINE_MAX = 16 * 1024 * 1024, /* bytes of a message; more is a broken worker */
};

/* Descriptors are borrowed and only needed during the call; -1: none. */
struct image_worker_spec {
    const char *program; /* path of cloche-image, or cloche-registry for what takes a network */
    const struct image_worker_request *request; /* version is filled in by the client */
    int archive_fd; /* load, import, place, verify: read from; save, pack: written to */
    int staging_fd; /* load, commit, pull, import, verify: where the result goes; populate:
                         ROOT/volumes */
    int content_fd; /* save, push: ROOT/content/sha256 */
    int upper_fd;   /* commit, copy: the container's upper folder, or with merged ROOT/layers;
                         verify: the layer's folder */
    int source_fd;  /* copy: a folder, or a detached mount */
    int target_fd;  /* copy: a detached mount */
    int tree_fd;    /* pack, place, stat, populate: what request->...->tree->kind says */
    int users_fd;   /* with request->...->tree->users: a user namespace */
    int log_fd;     /* its stderr; -1: /dev/null */
};
#define IMAGE_WORKER_SPEC_INIT                                                                     \
    {                                                                                              \
        .archive_fd = -1, .staging_fd = -1, .content_fd = -1, .upper_fd = -1, .source_fd = -1,     \
        .target_fd = -1, .tree_fd = -1, .users_fd = -1, .log_fd = -1                               \
    }

struct image_worker;

int image_worker_start(const struct image_worker_spec *spec, struct image_worker **ret,
                       struct error *err);

/* The control socket, borrowed: readable when image_worker_receive() has something to do. */
int image_worker_fd(const struct image_worker *worker);
/* Of its process, which may have ended. */
pid_t image_worker_pid(const struct image_worker *worker);

enum image_worker_event {
    IMAGE_WORKER_AGAIN,    /* nothing complete yet */
    IMAGE_WORKER_PROGRESS, /* *ret_message holds progress, owned by the caller */
    IMAGE_WORKER_DONE,     /* *ret_message holds the result, owned by the caller; it has ended */
};

/* Returns an enum image_worker_event, or -errno with the worker's own message ("shop.tar: ...")
 * or, when it died without one, how it died. Call until AGAIN, DONE or an error. */
int image_worker_receive(struct image_worker *worker, struct image_worker_message **ret_message,
                         struct error *err);

/* As image_worker_free(), but the end of the process is not waited for: true: *ret is the caller's
 * to reap. For loops, which a worker that takes its mounts down or hangs in one must not hold up.
 */
bool image_worker_release(struct image_worker *worker, struct process *ret);

/* NULL allowed. A worker that still runs is killed. */
void image_worker_free(struct image_worker *worker);
static inline void cleanup_image_worker_p(struct image_worker **worker)
{
    image_worker_free(*worker);
}
#define _cleanup_image_worker_ _cleanup_(cleanup_image_worker_p)

/* Starts, waits and returns the result. progress may be NULL; it is called on this thread.
 * cancel_fd: when it becomes readable or hangs up the worker is killed and -ECANCELED returned;
 * -1: none. */
typedef void (*image_worker_progress_handler)(const struct image_worker_progress *progress,
                                              void *context);
int image_worker_wait(struct image_worker *worker, image_worker_progress_handler progress,
                      void *context, int cancel_fd, struct image_worker_result **ret,
                      struct error *err); /* of one that was started */
int image_worker_run(const struct image_worker_spec *spec, image_worker_progress_handler progress,
                     void *context, int cancel_fd, struct image_worker_result **ret,
                     struct error *err);

#endif
