/* Format, check, eject, and the end: what is asked of volumes that are not mounted, or will not be
 * any more. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/clock.h>

#include "server.h"

enum { PROGRESS_MS = 250 };

/* Takes a volume that is not mounted. */
static int take_unmounted(struct job *job, uint32_t number, const char *doing,
                          struct stick_volume **ret_volume, struct error *err)
{
    struct stick_volume *volume;
    int r = volume_take(job->server, number, doing, true, &volume, err);
    if (r != 0)
        return r;
    if (volume->medium) {
        volume_give(job->server, volume);
        error_set(err, -EBUSY, "volume %u is mounted", number);
        error_hint(err, "stop the containers that have it: cloche usb ls shows them");
        return -EBUSY;
    }
    r = volume_claim(job->server, volume, CLAIM_WRITE, err);
    if (r != 0) {
        volume_give(job->server, volume);
        return r;
    }
    *ret_volume = volume;
    return 0;
}

static void give_back(struct server *server, struct stick_volume *volume)
{
    volume_unclaim(server, volume);
    volume_give(server, volume);
}

/* How far it is. */

struct telling {
    struct job *job;
    uint64_t findings;
    int64_t told; /* ms; 0: nothing yet */
};

static bool tell_progress(uint64_t done, uint64_t total, void *data)
{
    struct telling *telling = data;
    struct usb_stick_progress told = {
        .id = telling->job->request->id,
        .done = done,
        .total = total,
    };
    const struct usb_stick_event event = {.progress = &told};
    int64_t now = clock_milliseconds();
    if (telling->told == 0 || now - telling->told >= PROGRESS_MS) {
        telling->told = now;
        control_tell(telling->job->server, &event);
    }
    return !telling->job->is_cancelled;
}

/* Format. */

static int format(struct job *job, unsigned unit, struct block_device *part, uint64_t hidden,
                  struct error *err)
{
    const struct usb_stick_format *wanted = job->request->format;
    const struct medium_options medium_options = {0};
    struct telling telling = {.job = job};
    const struct format_options options = {
        .kind = (enum volume_kind)volume_kind_parse(wanted->kind),
        .label = wanted->label,
        .cluster_size = wanted->cluster_size,
        .hidden = hidden,
        .progress = tell_progress,
        .data = &telling,
    };
    struct medium *medium;
    if (part->read_only)
        return error_set(err, -EROFS, "the medium is write-protected");
    int r = medium_open(part, &medium_options, &medium, err);
    if (r != 0)
        return r;
    source_hold(job->server, unit, true);
    r = volume_format(medium, &options, err);
    if (r == -ECANCELED)
        error_hint(err, "there is no file system on it any more: format it again");
    int closed = medium_close(medium, r == 0 ? err : NULL);
    source_hold(job->server, unit, false);
    return r == 0 ? closed : r;
}

static int format_volume(struct job *job, struct error *err)
{
    const struct usb_stick_format *wanted = job->request->format;
    struct stick_volume *volume;
    int r = take_unmounted(job, wanted->volume, "format", &volume, err);
    if (r != 0)
        return r;
    r = format(job, volume->unit, volume->part, volume->partition.first, err);
    unit_identify(job->server, volume);
    give_back(job->server, volume);
    return r;
}

/* While a volume of it is taken its medium stays. A unit always has one: without a table it is the
 * whole, and where nothing but a broken table is, that is said. */
static int format_unit(struct job *job, struct error *err)
{
    const struct usb_stick_format *wanted = job->request->format;
    struct block_device *whole;
    int r = unit_take(job->server, wanted->unit, "format", err);
    if (r != 0)
        return r;
    struct block_device *medium = job->server->units[wanted->unit].medium;
    r = block_part(medium, 0, medium->sectors, &whole, err);
    if (r == 0) {
        r = format(job, wanted->unit, whole, 0, err);
        block_device_destroy(whole);
    }
    unit_give(job->server, wanted->unit, true);
    keeper_rescan(job->server, wanted->unit);
    return r;
}

int job_format(struct job *job, struct usb_stick_result *result, struct error *err)
{
    const struct usb_stick_format *wanted = job->request->format;
    (void)result;
    if (wanted->has_volume == wanted->has_unit)
        return error_set(err, -EINVAL, "format takes either a volume or a unit");
    return wanted->has_volume ? format_volume(job, err) : format_unit(job, err);
}

/* Check. */

static void tell_finding(const struct finding *finding, void *data)
{
    struct telling *telling = data;
    struct usb_stick_finding told = {
        .id = telling->job->request->id,
        .what = (char *)finding->what,
        .repaired = finding->repaired,
    };
    const struct usb_stick_event event = {.finding = &told};
    if (telling->findings++ < FINDINGS_TOLD)
        control_tell(telling->job->server, &event);
}

static int check(struct telling *telling, const struct stick_volume *volume, struct error *err)
{
    struct server *server = telling->job->server;
    struct block_device *part = volume->part;
    bool repair = telling->job->request->check->repair;
    const struct medium_options medium_options = {.read_only = !repair};
    const struct check_options options = {
        .repair = repair,
        .progress = tell_progress,
        .data = telling,
    };
    struct medium *medium;
    if (repair && part->read_only)
        return error_set(err, -EROFS, "the medium is write-protected: nothing can be repaired");
    int r = medium_open(part, &medium_options, &medium, err);
    if (r != 0)
        return r;
    if (repair)
        source_hold(server, volume->unit, true);
    r = volume_check(medium, &options, tell_finding, telling, err);
    int closed = medium_close(medium, r >= 0 ? err : NULL);
    if (repair)
        source_hold(server, volume->unit, false);
    return r >= 0 && closed < 0 ? closed : r;
}

int job_check(struct job *job, struct usb_stick_result *result, struct error *err)
{
    struct telling telling = {.job = job};
    struct stick_volume *volume;
    int r = take_unmounted(job, job->request->check->volume, "check", &volume, err);
    if (r != 0)
        return r;
    r = check(&telling, volume, err);
    unit_identify(job->server, volume);
    give_back(job->server, volume);
    if (r < 0)
        return r;
    result->check = xnew(struct usb_stick_checked);
    result->check->findings = telling.findings;
    result->check->left = (uint64_t)r;
    return 0;
}

/* Eject. */

static int close_unit(struct server *server, unsigned unit, struct error *err)
{
    int r = block_close(server, unit, "ejected", err);
    pthread_mutex_lock(&server->lock);
    if (r == 0 && server->units[unit].is_taken && !server->units[unit].block)
        r = error_set(err, -EBUSY, "unit %u is busy", unit);
    pthread_mutex_unlock(&server->lock);
    for (uint32_t number = 1; r == 0; number++) {
        struct stick_volume *volume;
        r = volume_take_next(server, number, unit, "unmount", &volume, err);
        if (r != 0 || !volume)
            break;
        number = volume->number;
        r = mounts_close(server, volume, "ejected", err);
        volume_give(server, volume);
    }
    return r;
}

static int eject(struct server *server, unsigned unit, struct error *err)
{
    pthread_mutex_lock(&server->lock);
    bool ejecting = server->units[unit].is_ejecting;
    server->units[unit].is_ejecting = true;
    pthread_mutex_unlock(&server->lock);
    if (ejecting)
        return error_set(err, -EBUSY, "unit %u is being ejected", unit);
    int r = close_unit(server, unit, err);
    if (r == 0)
        r = server->source->eject(server, unit, err);
    pthread_mutex_lock(&server->lock);
    server->units[unit].is_ejecting = false;
    pthread_mutex_unlock(&server->lock);
    return r;
}

int job_eject(struct job *job, struct usb_stick_result *result, struct error *err)
{
    const struct usb_stick_eject *wanted = job->request->eject;
    struct server *server = job->server;
    unsigned ejected = 0;
    int r = 0;
    (void)result;
    pthread_mutex_lock(&server->lock);
    unsigned count = server->unit_count;
    pthread_mutex_unlock(&server->lock);
    if (wanted->has_unit && wanted->unit >= count)
        return error_set(err, -ENOENT, "there is no unit %u", wanted->unit);
    if (wanted->has_unit)
        return eject(server, wanted->unit, err);
    for (unsigned unit = 0; r == 0 && unit < count; unit++) {
        pthread_mutex_lock(&server->lock);
        bool has_medium = server->units[unit].medium;
        pthread_mutex_unlock(&server->lock);
        if (!has_medium)
            continue;
        r = eject(server, unit, err);
        ejected++;
    }
    return r == 0 && ejected == 0 ? error_set(err, -ENOMEDIUM, "no unit has a medium") : r;
}

int job_end(struct job *job, struct usb_stick_result *result, struct error *err)
{
    struct server *server = job->server;
    (void)result;
    (void)err;
    pthread_mutex_lock(&server->lock);
    server->is_ending = true;
    jobs_cancel(server);
    while (server->jobs > 1) /* this one */
        pthread_cond_wait(&server->changed, &server->lock);
    pthread_mutex_unlock(&server->lock);
    keeper_stop(server);
    server->source->close(server);
    return 0;
}
