#include <errno.h>
#include <string.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/log.h>
#include <base/text.h>
#include <store/build.h>

#include "cpusets.h"
#include "errand.h"
#include "events.h"
#include "linked.h"
#include "internal.h"
#include "look.h"
#include "names.h"
#include "place.h"
#include "namespace.h"
#include "spec.h"
#include "supervision.h"
#include "usb.h"
#include "userns.h"
#include "volume_fill.h"

enum { NAME_ATTEMPTS = 8 };

struct creation {
    struct disk_job job;
    char *settled; /* owned; the image, when it has been made whole and durable */
    bool loose;    /* that is to be done first */
    bool has_volumes;
    struct volume_plan volumes;
    uv_work_t flush;             /* of the image, or of what was copied into volumes */
    int rootfs_fd;               /* to fill volumes from */
    struct container *container; /* the table's reference is another one */
    struct store *store;
    char **warnings; /* owned */
    engine_done done;
    void *data;
    struct error err;
};

/* --- checks ----------------------------------------------------------------------------------- */

static int check(struct engine *engine, const struct api_container_spec *spec, struct error *err)
{
    int r = spec_check(spec, engine->cpus, err);

    if (r == 0)
        r = usb_spec_check_engine(engine, spec, err);
    if (r == 0 && spec->resources)
        r = cpusets_check(spec->resources, err);
    if (r == 0 && engine->removing)
        r = error_set(err, -EAGAIN, "the instance is being removed");
    if (r == 0 && spec->name)
        r = container_check_name_free(engine, spec->name, err);
    if (r == 0)
        r = namespaces_check(engine, spec, err);
    if (r == 0 && engine->containers_count >= ENGINE_CONTAINERS_MAX)
        r = error_set(err, -EAGAIN, "there are %d containers already", ENGINE_CONTAINERS_MAX);
    return r;
}

/* --- making it -------------------------------------------------------------------------------- */

static char *free_name(struct engine *engine)
{
    for (unsigned attempt = 0;; attempt++) {
        char *name = name_invent(attempt);
        if (attempt >= NAME_ATTEMPTS || !container_name_in_use(engine, name))
            return name;
        free(name);
    }
}

static struct container *new_container(struct engine *engine, const struct api_container_spec *spec)
{
    struct container *container = xnew(struct container);

    container->engine = engine;
    container->references = 1;
    container->hidden = true;
    text_random_hex(container->id, CONTAINER_ID_DIGITS);
    container->name = spec->name ? xstrdup(spec->name) : free_name(engine);
    container->spec = spec_copy(spec);
    container->record = xnew(struct record_container);
    container->record->version = 1;
    container->record->created_at = clock_now();
    container_set_state(container, CONTAINER_CREATED);
    return container;
}

/* "linux/arm64/v8"; parts that are left out do not matter. */
static int check_platform(const char *wanted, const struct store_image *image, struct error *err)
{
    _cleanup_strv_ char **parts = wanted ? strv_split(wanted, '/') : NULL;
    size_t count = strv_length(parts);
    const char *os = image->config->os, *architecture = image->config->architecture;
    const char *asked = count > 1 ? parts[1] : NULL;

    if (text_equal(asked, "x86_64"))
        asked = "amd64";
    if (text_equal(asked, "aarch64"))
        asked = "arm64";
    if (count == 0 || (text_equal(parts[0], os) && (!asked || text_equal(asked, architecture))))
        return 0;
    return error_set(err, ENGINE_NO_SUCH_IMAGE,
                     "image with reference %s was found but does not match the specified platform: "
                     "wanted %s, actual: %s/%s",
                     image->id, wanted, os ? os : "", architecture ? architecture : "");
}

static int merge_image(struct container *container, const struct store_image *image,
                       struct error *err)
{
    const struct oci_image_execution *config = image->config->config;
    struct image_defaults defaults = {0};

    if (config) {
        defaults.entrypoint = config->entrypoint;
        defaults.command = config->cmd;
        defaults.env = config->env;
        defaults.labels = config->labels;
        defaults.exposed_ports = config->exposed_ports;
        defaults.working_dir = config->working_dir;
        defaults.user = config->user;
        defaults.stop_signal = config->stop_signal;
        defaults.healthcheck = config->healthcheck;
    }
    return spec_merge(container->spec, &defaults, container->id, &container->effective, err);
}

/* Snapshot and container (change; NULL: it comes later) appear in one transaction; folders without
 * it are the next daemon's to remove. */
static int record_both(struct creation *creation, const struct record_change *change,
                       const char *image_id, struct error *err)
{
    struct store_db *db = store_database(creation->store);
    const char *id = creation->container->id;

    int r = store_db_begin_relaxed(db, err);
    if (r < 0)
        return r;
    _cleanup_store_rollback_ struct store_db *transaction = db;
    _cleanup_free_ char *mapping = userns_text(creation->container);
    r = store_snapshot_prepare(creation->store, image_id, id, mapping, err);
    if (r < 0)
        return r;
    uint64_t limit = 0;
    r = spec_disk_limit(creation->container->spec, &limit, err);
    if (r == 0 && limit)
        r = store_snapshot_limit(creation->store, id, limit, err);
    if (r < 0) {
        store_db_rollback(db);
        store_snapshot_remove(creation->store, id, NULL);
        return r;
    }
    r = change ? record_change_run(change, err) : 0;
    if (r == 0)
        r = store_db_commit(transaction, err);
    if (r < 0) {
        store_db_rollback(db);
        store_snapshot_remove(creation->store, id, NULL);
    }
    return r;
}

static int record(struct creation *creation, struct error *err)
{
    _cleanup_(record_change_finish) struct record_change change = {0};

    record_change_insert(&change, creation->container);
    return record_both(creation, &change, creation->container->record->image_id, err);
}

/* One with volumes is recorded when these are known: volumes_work(). */
static int create(struct creation *creation, struct error *err)
{
    struct container *container = creation->container;
    _cleanup_store_image_ struct store_image *image = NULL;
    int r;

    r = store_image_find(creation->store, container->spec->image, &image, err);
    if (r == -ENOENT && err)
        err->code = ENGINE_NO_SUCH_IMAGE;
    if (r >= 0)
        r = check_platform(container->spec->platform, image, err);
    if (r < 0)
        return r;
    creation->loose = store_image_is_loose(image) && !text_equal(creation->settled, image->id);
    if (creation->loose) {
        free(creation->settled);
        creation->settled = xstrdup(image->id);
        return 0;
    }
    container->record->image_id = xstrdup(image->id);
    container->record->host_base = container->record->has_host_base = image->base != NULL;
    r = merge_image(container, image, err);
    if (r < 0)
        return r;
    if (image->config->config)
        volumes_add_images(container->effective, image->config->config->volumes);
    creation->has_volumes = volumes_needed(container->effective);
    return creation->has_volumes ? 0 : record(creation, err);
}

/* The container is hidden until create_end(): nobody else looks at it. */
static void create_work(struct disk_job *job)
{
    struct creation *creation = disk_job_of(job, struct creation, job);

    engine_settle(&creation->err, create(creation, &creation->err));
}

static void create_end(struct creation *creation)
{
    struct container *container = creation->container;
    struct engine_result result = ENGINE_RESULT_INIT;

    if (creation->err.code < 0) {
        result.err = &creation->err;
        container_table_remove(container);
    } else {
        container->hidden = false;
        event_container(container, "create", NULL);
        result.id = container->id;
        result.warnings = creation->warnings;
    }
    volume_plan_finish(container->engine, &creation->volumes, creation->err.code < 0);
    creation->done(&result, creation->data);
    container_unref(container);
    strv_free(creation->warnings);
    close_fd(creation->rootfs_fd);
    free(creation->settled);
    error_finish(&creation->err);
    free(creation);
}

/* --- its volumes ------------------------------------------------------------------------------ */

/* What is copied into volumes comes from the container's snapshot, before the container is there:
 * cut off in between, neither is. */
static int make_volumes(struct creation *creation, struct error *err)
{
    const struct container *container = creation->container;
    int r = volume_plan_run(&creation->volumes, container->engine, err);

    if (r < 0)
        return r;
    if (!creation->volumes.copies_count)
        return record(creation, err);
    r = record_both(creation, NULL, container->record->image_id, err);
    if (r == 0)
        r = store_snapshot_mount(creation->store, container->id, container->effective->auto_remove,
                                 NULL, &creation->rootfs_fd, err);
    return r;
}

static void volumes_work(struct disk_job *job)
{
    struct creation *creation = disk_job_of(job, struct creation, job);

    engine_settle(&creation->err, make_volumes(creation, &creation->err));
}

static int settle_volumes(struct creation *creation, struct error *err)
{
    _cleanup_(record_change_finish) struct record_change change = {0};
    int r = volume_plan_settle(&creation->volumes, creation->container->engine, err);

    record_change_insert(&change, creation->container);
    return r < 0 ? r : record_change_run(&change, err);
}

static void settle_work(struct disk_job *job)
{
    struct creation *creation = disk_job_of(job, struct creation, job);

    if (creation->err.code == 0)
        engine_settle(&creation->err, settle_volumes(creation, &creation->err));
    if (creation->err.code == 0)
        return;
    volume_plan_discard(&creation->volumes, creation->container->engine);
    store_snapshot_remove(creation->store, creation->container->id, NULL);
}

static void settle_done(struct disk_job *job)
{
    create_end(disk_job_of(job, struct creation, job));
}

static void settle(struct creation *creation)
{
    creation->job.work = settle_work;
    creation->job.done = settle_done;
    disk_submit(creation->container->engine->disk, &creation->job);
}

/* On the disk before anything says that it is there: else a power cut could leave a volume that
 * counts as filled, with files without their content. One flush of all, however many they are. */
static void flush_work(uv_work_t *work)
{
    struct creation *creation = work->data;

    engine_settle(&creation->err, volume_plan_flush(creation->container->engine, &creation->err));
}

static void flush_done(uv_work_t *work, int status)
{
    struct creation *creation = work->data;

    creation->container->engine->image_calls--;
    settle(creation);
}

static void flush(struct creation *creation)
{
    struct engine *engine = creation->container->engine;

    creation->flush.data = creation;
    engine->image_calls++;
    errand_run(engine, &creation->flush, flush_work, flush_done);
}

static void on_filled(const struct error *err, const struct image_worker_result *result, void *data)
{
    struct creation *creation = data;

    if (err)
        error_set(&creation->err, err->code, "%s", error_message(err));
    if (err)
        settle(creation);
    else
        flush(creation);
}

static void volumes_done(struct disk_job *job)
{
    struct creation *creation = disk_job_of(job, struct creation, job);
    int r = creation->err.code;

    if (r == 0 && !creation->volumes.copies_count) {
        create_end(creation);
        return;
    }
    if (r == 0)
        r = volume_plan_fill(creation->container, &creation->volumes, creation->rootfs_fd,
                             on_filled, creation, &creation->err);
    close_fd(steal_fd(&creation->rootfs_fd));
    if (r < 0)
        settle(creation);
}

/* The step of a build, which is flushed on a thread of its own: the disk's has others to serve. */
static void image_work(uv_work_t *work)
{
    struct creation *creation = work->data;

    engine_settle(&creation->err,
                  store_image_settle(creation->store, creation->settled, &creation->err));
}

static void image_done(uv_work_t *work, int status)
{
    struct creation *creation = work->data;
    struct engine *engine = creation->container->engine;

    engine->image_calls--;
    if (creation->err.code == 0 && engine->ending)
        error_set(&creation->err, -EAGAIN, "the daemon ends");
    if (creation->err.code < 0)
        create_end(creation);
    else
        disk_submit(engine->disk, &creation->job);
}

static void settle_image(struct creation *creation)
{
    struct engine *engine = creation->container->engine;

    creation->flush.data = creation;
    engine->image_calls++;
    errand_run(engine, &creation->flush, image_work, image_done);
}

static void create_done(struct disk_job *job)
{
    struct creation *creation = disk_job_of(job, struct creation, job);

    if (creation->err.code == 0 && creation->loose) {
        settle_image(creation);
        return;
    }
    if (creation->err.code == 0 && creation->has_volumes)
        engine_settle(&creation->err,
                      volume_plan_make(creation->container, &creation->volumes, &creation->err));
    if (creation->err.code < 0 || !creation->has_volumes) {
        create_end(creation);
        return;
    }
    creation->job.work = volumes_work;
    creation->job.done = volumes_done;
    disk_submit(creation->container->engine->disk, &creation->job);
}

static void on_sources_found(const struct error *err, struct look *found, void *data)
{
    struct creation *creation = data;
    struct engine *engine = creation->container->engine;

    if (err)
        error_set(&creation->err, err->code, "%s", error_message(err));
    else if (engine->ending)
        error_set(&creation->err, -EAGAIN, "the daemon ends");
    if (creation->err.code < 0)
        create_done(&creation->job);
    else
        disk_submit(engine->disk, &creation->job);
}

static char **warnings_for(const struct api_container_spec *spec)
{
    char **warnings = NULL;

    const char *mode = spec->network_mode;

    if (spec->ports_count && (text_equal(mode, "host") || text_equal(mode, "none")))
        strv_take(&warnings, xasprintf("Published ports are discarded when using %s network mode",
                                       spec->network_mode));
    if (spec->resources && spec->resources->kernel_memory)
        strv_append(&warnings, "Your kernel does not support kernel memory limit capabilities or "
                               "the cgroup is not mounted. Limitation discarded.");
    supervision_warnings(spec, &warnings);
    return warnings;
}

void engine_container_create(struct engine *engine, const struct api_container_spec *spec,
                             engine_done done, void *data)
{
    container_create(engine, spec, false, done, data);
}

void container_create(struct engine *engine, const struct api_container_spec *spec, bool build_step,
                      engine_done done, void *data)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    if (check(engine, spec, &err) < 0) {
        engine_fail(done, data, &err);
        return;
    }
    struct creation *creation = xnew(struct creation);
    creation->container = new_container(engine, spec);
    creation->container->record->build_step = build_step;
    creation->container->record->has_build_step = build_step;
    if (userns_choose(creation->container, &err) < 0 ||
        linked_resolve(creation->container, &err) < 0) {
        engine_fail(done, data, &err);
        container_unref(creation->container);
        free(creation);
        return;
    }
    places_plan(creation->container);
    if (places_check(creation->container, &err) < 0) {
        engine_fail(done, data, &err);
        container_unref(creation->container);
        free(creation);
        return;
    }
    places_write(creation->container);
    creation->store = engine->store;
    creation->warnings = warnings_for(spec);
    creation->done = done;
    creation->data = data;
    creation->rootfs_fd = -1;
    creation->job.work = create_work;
    creation->job.done = create_done;
    container_table_add(engine, container_ref(creation->container));
    if (!look_wants_sources(creation->container->spec)) {
        disk_submit(engine->disk, &creation->job);
    } else if (look_for_sources(engine, creation->container->spec, on_sources_found, creation,
                                &creation->err) < 0) {
        create_done(&creation->job);
    }
}
