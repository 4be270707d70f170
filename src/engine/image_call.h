/*
 * A call that works on images: on another thread, since the store blocks.
 */
#ifndef ENGINE_IMAGE_CALL_H
#define ENGINE_IMAGE_CALL_H

#include <stdbool.h>
#include <uv.h>

#include <base/error.h>
#include <engine/engine.h>
#include <store/store.h>

#include "fetch.h"
#include "image_progress.h"

struct engine_cancel {
    int fd; /* eventfd; readable: cancel */
};

/* An event that a step has to tell. */
struct image_news {
    struct image_news *next;
    const char *action;
    char *id, *name; /* owned; name may be NULL */
};

struct image_call;
typedef int (*image_step)(struct image_call *call, struct error *err);

struct image_call {
    uv_work_t work;
    struct engine *engine;
    image_step step;                   /* on a worker thread; fills document or the error */
    const struct json_type *type;      /* of document */
    void *document;                    /* owned */
    const struct json_type *what_type; /* of what */
    void *what;                        /* owned; what was asked for; or NULL */
    char *image, *name, *reference;    /* owned arguments */
    char **names;                      /* owned */
    char *url;                         /* owned; import: where the archive is fetched from */
    struct fetch_settings fetch;       /* with url */
    bool force;                        /* list: also steps of builds */
    bool keep_parents;                 /* remove: the steps of builds it stands on */
    int archive_fd;
    struct engine_cancel cancel;
    struct image_progress *progress; /* owned; NULL: not told */
    char **used_images;              /* owned; image IDs of the containers, for counts */
    struct image_news *news;         /* owned; what to tell when it has succeeded */
    engine_image_done done;
    void *data;
    struct error err;
};

/* step runs on a worker thread and makes document, which is of this type. */
struct image_call *image_call_new(struct engine *engine, image_step step,
                                  const struct json_type *type, engine_image_done done, void *data);
/* Begins it; tells and frees it when it has ended. */
void image_call_submit(struct image_call *call);
/* The same on a thread of its own: for what may take long. */
void image_call_submit_slow(struct image_call *call);
/* The same for one that reads or writes an archive, whose descriptor is taken over; it can be
 * cancelled by what is returned. */
struct engine_cancel *image_call_submit_archive(struct image_call *call, int archive_fd);

/* What this machine runs, of an archive with images for several. */
const struct image_worker_platform *image_own_platform(void);

/* Loop's thread, before submit: notes which images the containers are made of. */
void image_call_used(struct image_call *call);

/* In a step: an event to tell when all has succeeded. name: NULL: none. */
void image_call_news(struct image_call *call, const char *action, const char *id, const char *name);
void image_call_removed(struct image_call *call, const char *id,
                        const struct store_removed *removed);

/* In a step: call->image. -ENOENT is told as ENGINE_NO_SUCH_IMAGE. */
int image_call_find(struct image_call *call, struct store_image **ret, struct error *err);

/* ID of the image that it was made from, owned; NULL: of none, or of none that is still here. */
char *image_parent(struct store *store, const struct store_image *image);

/* A copy for a field that must not be absent. */
char **image_list_of(char *const *list, size_t *ret_count);

const struct json_string_map *image_labels(const struct store_image *image); /* may be NULL */

#endif
