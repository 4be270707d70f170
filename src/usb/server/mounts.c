/* Doors: a FUSE connection that came with a request shows a volume. */
#include <errno.h>
#include <stdlib.h>

#include <base/alloc.h>
#include <base/log.h>

#include "server.h"

/* On a thread of the door. */
static void ended(struct fuse_door *door, enum fuse_door_end end, const char *message, void *data)
{
    struct stick_mount *mount = data;
    struct server *server = mount->server;
    (void)door;
    pthread_mutex_lock(&server->lock);
    mount->ended = true;
    mount->end = end;
    mount->message = xstrdup(message);
    pthread_cond_signal(&server->work);
    pthread_mutex_unlock(&server->lock);
}

static void tell_end(struct server *server, const struct stick_mount *mount, const char *reason,
                     const char *error)
{
    struct usb_stick_unmounted unmounted = {
        .mount = mount->number,
        .volume = mount->volume->number,
        .reason = (char *)reason,
        .error = (char *)error,
    };
    const struct usb_stick_event event = {.unmounted = &unmounted};
    control_tell(server, &event);
}

static void mount_free(struct stick_mount *mount)
{
    free(mount->message);
    free(mount);
}

/* Out of the list and closed; the volume with its last one. */
static int take_down(struct server *server, struct stick_mount *mount, struct error *err)
{
    struct stick_volume *volume = mount->volume;
    struct stick_mount **at = &volume->mounts;
    fuse_door_close(mount->door);
    pthread_mutex_lock(&server->lock);
    while (*at != mount)
        at = &(*at)->next;
    *at = mount->next;
    server->mount_count--;
    pthread_mutex_unlock(&server->lock);
    return volume->mounts ? medium_sync(volume->medium, err) : volume_close(server, volume, err);
}

int mount_close(struct server *server, struct stick_mount *mount, struct error *err)
{
    int r = take_down(server, mount, err);
    mount_free(mount);
    return r;
}

static int close_and_tell(struct server *server, struct stick_mount *mount, const char *reason,
                          struct error *err)
{
    _cleanup_error_ struct error own = ERROR_INIT;
    bool failed = mount->ended && mount->end == FUSE_DOOR_FAILED;
    int r = take_down(server, mount, &own);
    tell_end(server, mount, reason, r != 0 ? error_message(&own) : failed ? mount->message : NULL);
    mount_free(mount);
    return r == 0 ? 0 : error_move(err, &own);
}

int mounts_close(struct server *server, struct stick_volume *volume, const char *reason,
                 struct error *err)
{
    int r = 0;
    while (volume->mounts) {
        int closed = close_and_tell(server, volume->mounts, reason, r == 0 ? err : NULL);
        r = r == 0 ? closed : r;
    }
    return r;
}

void mounts_reap(struct server *server, struct stick_volume *volume)
{
    for (struct stick_mount *next, *mount = volume->mounts; mount; mount = next) {
        _cleanup_error_ struct error err = ERROR_INIT;
        next = mount->next;
        if (mount->ended &&
            close_and_tell(server, mount, fuse_door_end_name(mount->end), &err) != 0)
            log_failure(LOG_ERROR, &err, "volume %u: not all that was written is there",
                        volume->number);
    }
}

/* Mounting. */

static int may_mount(struct server *server, const struct stick_volume *volume,
                     const struct usb_stick_mount *wanted, struct error *err)
{
    pthread_mutex_lock(&server->lock);
    bool full = server->mount_count >= MOUNTS_MAX;
    pthread_mutex_unlock(&server->lock);
    if (full)
        return error_set(err, -EMFILE, "there are %d mounts, no more fit in", MOUNTS_MAX);
    if (volume->medium && volume->read_only && !volume->part->read_only && !wanted->read_only) {
        error_set(err, -EBUSY, "volume %u is mounted so that nothing is written to it",
                  volume->number);
        return error_hint(err, "end its other mounts first, or mount it read-only");
    }
    return 0;
}

static int open_door(struct job *job, struct stick_mount *mount, struct error *err)
{
    const struct usb_stick_mount *wanted = job->request->mount;
    const struct fuse_door_options options = {
        .read_only = mount->read_only,
        .uid = wanted->uid,
        .gid = wanted->gid,
        .file_mode = wanted->file_mode,
        .folder_mode = wanted->folder_mode,
        .bytes_per_second = wanted->bytes_per_second,
        .operations_per_second = wanted->operations_per_second,
        .size_limit = wanted->size_limit,
        .ended = ended,
        .data = mount,
    };
    return fuse_door_open(mount->volume->served, steal_fd(&job->fds[0]), &options, &mount->door,
                          err);
}

static int add_mount(struct job *job, struct stick_volume *volume, struct stick_mount **ret_mount,
                     struct error *err)
{
    struct server *server = job->server;
    struct stick_mount *mount = xnew(struct stick_mount);
    mount->server = server;
    mount->volume = volume;
    mount->read_only = volume->read_only || job->request->mount->read_only;
    /* In the list before its end can be told. */
    pthread_mutex_lock(&server->lock);
    mount->number = ++server->last_mount;
    mount->next = volume->mounts;
    volume->mounts = mount;
    server->mount_count++;
    pthread_cond_signal(&server->work);
    pthread_mutex_unlock(&server->lock);
    int r = open_door(job, mount, err);
    if (r != 0)
        mount_close(server, mount, NULL);
    else
        *ret_mount = mount;
    return r;
}

int job_mount(struct job *job, struct usb_stick_result *result, struct error *err)
{
    struct server *server = job->server;
    const struct usb_stick_mount *wanted = job->request->mount;
    struct stick_volume *volume;
    struct stick_mount *mount;
    int r = volume_take(server, wanted->volume, "mount", false, &volume, err);
    if (r != 0)
        return r;
    r = may_mount(server, volume, wanted, err);
    if (r == 0 && !volume->medium)
        r = volume_open(server, volume, wanted, err);
    if (r == 0)
        r = add_mount(job, volume, &mount, err);
    if (r == 0) {
        result->mount = xnew(struct usb_stick_mounted);
        status_of_mount(mount, result->mount);
    }
    volume_give(server, volume);
    return r;
}

/* The volume of a mount; 0: there is none. */
static uint32_t find_volume(struct server *server, uint32_t number)
{
    uint32_t found = 0;
    pthread_mutex_lock(&server->lock);
    for (const struct stick_volume *volume = server->volumes; volume; volume = volume->next)
        for (const struct stick_mount *mount = volume->mounts; mount; mount = mount->next)
            if (mount->number == number)
                found = volume->number;
    pthread_mutex_unlock(&server->lock);
    return found;
}

int job_unmount(struct job *job, struct usb_stick_result *result, struct error *err)
{
    struct server *server = job->server;
    uint32_t number = job->request->unmount->mount;
    struct stick_volume *volume = NULL;
    (void)result;
    uint32_t of = find_volume(server, number);
    int r = of ? volume_take(server, of, "unmount", false, &volume, err) : -ENOENT;
    struct stick_mount *mount = r == 0 ? volume->mounts : NULL;
    while (mount && mount->number != number)
        mount = mount->next;
    if (mount)
        r = mount_close(server, mount, err);
    else if (r == 0 || r == -ENOENT)
        r = error_set(err, -ENOENT, "there is no mount %u", number);
    if (volume)
        volume_give(server, volume);
    return r;
}
