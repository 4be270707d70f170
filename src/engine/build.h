/*
 * A build under way. It has a thread of its own, and one for each stage that is being worked on;
 * these block, and ask the loop for what only the loop may do (build_call).
 */
#ifndef ENGINE_BUILD_H
#define ENGINE_BUILD_H

#include <pthread.h>
#include <stdbool.h>

#include <image/worker.h>
#include <schema/build.h>

#include "fetch.h"
#include "image_call.h"
#include "internal.h"

enum {
    BUILDS_MAX = 64,              /* at a time */
    BUILD_PARALLEL_STAGES = 4,    /* of one */
    BUILD_LANE_MAX = 1024 * 1024, /* bytes that a stage may be ahead of what is shown */
    BUILD_LAST_WORDS_MS = 2000,   /* that a client has to take why it was cancelled */
    BUILD_TEXT_MAX = 16 * 1024,   /* of a RUN's output in one message */
};

/* --- build_output.c: what the client sees, stage by stage ---------------------------------------
 */

struct build_lane {
    struct buffer text; /* not shown yet */
    bool ended;
};

struct build_output {
    int fd, cancel_fd; /* not owned; fd -1: nobody looks */
    bool quiet;
    bool broken; /* the client does not take it any more */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct build_lane *lanes;
    size_t count, front; /* the lane that is shown as it comes */
};

void build_output_init(struct build_output *output, int fd, int cancel_fd, bool quiet);
void build_output_finish(struct build_output *output);
/* The messages of each lane come together, in the order of the lanes. Before that there is one. */
void build_output_divide(struct build_output *output, size_t lanes);
void build_output_end_lane(struct build_output *output, size_t lane);
/* From any thread; blocks while the lane is too far ahead, or the client is slow. */
void build_say(struct build_output *output, size_t lane, const char *format, ...) _printf_(3, 4);
void build_say_text(struct build_output *output, size_t lane, const char *text, size_t length);
/* Also with quiet: the result, and what went wrong. */
void build_tell(struct build_output *output, const struct api_build_message *message);

/* --- build.c ------------------------------------------------------------------------------------
 */

/* An image that stages stand on or copy from. */
struct build_image {
    char *name, *id;
    char *platform; /* that was asked for; NULL: none */
    struct oci_image_execution *config;
};

enum build_stage_state { STAGE_WAITING, STAGE_RUNNING, STAGE_DONE };

struct build;

/* What the remotes of an ADD became: in a staging folder that the step's layer is made in, too. */
struct build_fetched {
    struct store_staging *staging; /* NULL: nothing was */
    struct image_worker_fetched **items;
    size_t count;
};

struct build_work {
    struct build *build;
    size_t index; /* of the stage, and its lane */
    enum build_stage_state state;
    pthread_t thread;
    char *image_id;               /* owned: the image so far */
    char *container;              /* owned: of the RUN under way; NULL: none */
    struct build_fetched fetched; /* of the step under way */
};

/* Something that the loop's thread does for another one, which waits. */
struct build_call {
    struct build_call *next;
    void (*begin)(struct build_call *call); /* on the loop; ends in build_call_end() */
    struct build *build;
    bool ended;
    struct error err;
};

struct build {
    struct build *next; /* the engine's */
    struct engine *engine;
    struct api_build_run *how; /* owned */
    int socket_fd;             /* the context in, messages out */
    struct engine_cancel cancel;
    struct fetch_settings fetch;
    struct build_output output;

    uv_async_t async;
    pthread_t thread;
    pthread_mutex_t lock; /* guards calls, the state of stages, failure */
    pthread_cond_t changed;
    struct build_call *calls;
    bool ended; /* the thread has */

    struct store_staging *staging;
    int64_t number; /* the store's (store/build.h) */
    int files_fd;   /* the unpacked context */
    char *platform;
    struct build_plan *plan;
    struct build_image *images;
    size_t images_count;
    struct build_work *stages;
    unsigned running;
    struct error err; /* why it failed; the first reason counts */
    int exit_code;    /* of the RUN that failed */
    char *image_id;
    char **names;
    engine_image_done done;
    void *data;
};

/* Runs call->begin on the loop's thread and waits for its end. Returns call->err.code. */
int build_call_run(struct build *build, struct build_call *call);
void build_call_end(struct build_call *call, const struct error *err);
bool build_cancelled(const struct build *build);
/* By its name in a plan, or nothing but a name of the store: found or pulled. platform NULL: of the
 * build, if it was asked for one. *ret is borrowed from the build. */
int build_find_image(struct build *build, const char *name, const char *platform,
                     const struct build_image **ret, struct error *err);

/* --- build_images.c -----------------------------------------------------------------------------
 */

/* In the store, or pulled. platform NULL or "": whatever it is for. Owned by the caller. */
int build_get_image(struct build *build, const char *name, const char *platform,
                    struct store_image **ret, struct error *err);
/* os/architecture[/variant], of this machine where nothing is asked for. Owned by the caller. */
int build_platform(const char *asked, char **ret, struct error *err);

/* All builds of an engine that ends, or whose instance is removed. */
void builds_cancel(struct engine *engine);

/* --- build_stage.c ------------------------------------------------------------------------------
 */

/* All steps of a stage, whose parents are done. */
int build_stage(struct build_work *work, struct error *err);

/* --- build_squash.c -----------------------------------------------------------------------------
 */

/* build->image_id becomes the image in which all that the last stage added is one layer. */
int build_squash(struct build *build, struct error *err);

/* --- build_files.c: COPY, ADD, WORKDIR ----------------------------------------------------------
 */

/* A layer that a step made, in its staging. */
struct build_layer {
    struct store_staging *staging;
    struct image_worker_result *result;
};
void build_layer_finish(struct build_layer *layer);

/* *ret_digest is owned: of what would be copied. */
int build_files_probe(struct build_work *work, const struct build_copy *copy, char **ret_digest,
                      struct error *err);
/* Fetches the copy's remotes, and adds what they are to the text of a digest. */
int build_files_fetch(struct build_work *work, const struct build_copy *copy, struct buffer *digest,
                      struct error *err);
void build_fetched_finish(struct build_fetched *fetched);
int build_files(struct build_work *work, const struct build_step *step, struct build_layer *ret,
                struct error *err);

/* --- build_run.c: RUN ---------------------------------------------------------------------------
 */

int build_run(struct build_work *work, const struct build_step *step, struct build_layer *ret,
              struct error *err);
/* Its container, when the step is done. */
void build_run_remove(struct build_work *work, bool failed);

#endif
