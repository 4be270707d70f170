/*
 * What the process of a stick has for itself: a user, so that those of two sticks have nothing to
 * do with each other, and a cgroup with limits.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/log.h>

#include "cgroup.h"
#include "usb_internal.h"

enum {
    USERS_FIRST = 0x70000000, /* up to 0x7FFE0000 systemd's UIDS-GIDS.md has them unused */
    USERS_BLOCKS = 16 * 1024, /* one for each instance of a machine */
    USERS_ALIKE = 65526,      /* of cloche-usb(8), where no others are to be had */
    TASKS = 320,              /* its threads are 256 at most */
    PROCESSORS = 2,
    MAP_MAX = 64 * 1024,
    DROP_AGAIN_MS = 50,
    DROPS_MAX = 200,
};

/* --- users ------------------------------------------------------------------------------------ */

/* FNV-1a. */
static uint32_t hash(const char *text)
{
    uint32_t value = 2166136261U;

    for (; *text; text++)
        value = (value ^ (uint8_t)*text) * 16777619U;
    return value;
}

/* All of them are users outside of this user namespace, too. */
static bool are_mapped(const char *path, uint32_t first)
{
    _cleanup_free_ char *text = NULL;
    char *rest;

    if (file_read_at(AT_FDCWD, path, MAP_MAX, &text, NULL, NULL) < 0)
        return false;
    rest = text;
    for (char *line; (line = strsep(&rest, "\n"));) {
        uint64_t inside, outside, count;
        if (sscanf(line, "%" SCNu64 " %" SCNu64 " %" SCNu64, &inside, &outside, &count) == 3 &&
            first >= inside && first + (uint64_t)USB_USERS <= inside + count)
            return true;
    }
    return false;
}

void usb_room_open(struct usb *usb)
{
    const struct usb_settings_settings *settings = usb->settings;
    uint32_t block = hash(usb->engine->instance->name) % USERS_BLOCKS;

    usb->users_first =
        settings && settings->has_users ? settings->users : USERS_FIRST + block * USB_USERS;
    if (are_mapped("/proc/self/uid_map", usb->users_first) &&
        are_mapped("/proc/self/gid_map", usb->users_first))
        return;
    log_warning("there are no users from %u on here: the processes of all sticks have the same one",
                usb->users_first);
    usb->users_first = 0;
}

void usb_room_take_user(struct usb *usb, uint32_t user)
{
    if (usb->users_first && user >= usb->users_first && user - usb->users_first < USB_USERS)
        usb->users[user - usb->users_first] = true;
}

uint32_t usb_room_new_user(struct usb *usb)
{
    for (unsigned i = 0; usb->users_first && i < USB_USERS; i++) {
        unsigned next = usb->users_next++ % USB_USERS; /* one that was let go of long ago */
        if (usb->users[next])
            continue;
        usb->users[next] = true;
        return usb->users_first + next;
    }
    return USERS_ALIKE;
}

void usb_room_drop_user(struct usb *usb, uint32_t user)
{
    if (usb->users_first && user >= usb->users_first && user - usb->users_first < USB_USERS)
        usb->users[user - usb->users_first] = false;
}

/* --- cgroups ---------------------------------------------------------------------------------- */

char *usb_room_name(const struct stick *stick)
{
    return xasprintf("usb-%s", stick->key);
}

void usb_room_sweep(struct usb *usb)
{
    cgroup_sweep_small(usb->engine->cgroup_parent, "usb-");
}

int usb_room_make(const struct usb *usb, const char *name, struct error *err)
{
    const struct usb_settings_settings *settings = usb->settings;
    const struct cgroup_small limits = {
        .memory = usb_memory(usb),
        .tasks = TASKS,
        /* A cgroup without real-time runtime, which it does not have, refuses such processes. */
        .processors = settings && settings->has_real_time ? 0 : PROCESSORS,
    };

    return cgroup_make_small(usb->engine->cgroup_parent, name, &limits, err);
}

/* The one that waits for the jailed process ends before that, and a cgroup cannot go before the
 * last of its processes. */
struct dropping {
    uv_timer_t timer;
    struct stick *stick; /* a reference */
    char *parent, *name; /* owned */
    unsigned times;
};

static void on_drop_closed(uv_handle_t *handle)
{
    struct dropping *dropping = handle->data;

    free(dropping->parent);
    free(dropping->name);
    free(dropping);
}

void usb_room_forget(struct stick *stick)
{
    struct dropping *dropping = steal_ptr(stick->dropping);

    if (!dropping)
        return;
    dropping->stick = NULL;
    uv_close((uv_handle_t *)&dropping->timer, on_drop_closed);
    stick_unref(stick);
}

static void on_drop(uv_timer_t *timer)
{
    struct dropping *dropping = timer->data;
    struct stick *stick = dropping->stick;

    if (!cgroup_drop_small(dropping->parent, dropping->name) && ++dropping->times < DROPS_MAX)
        return;
    stick_ref(stick);
    usb_room_forget(stick);
    stick_settle(stick); /* it may have waited for that */
    stick_unref(stick);
}

void usb_room_drop(struct stick *stick)
{
    struct usb *usb = stick->usb;
    _cleanup_free_ char *name = usb_room_name(stick);

    if (cgroup_drop_small(usb->engine->cgroup_parent, name) || usb->ending || stick->dropping)
        return;
    struct dropping *dropping = stick->dropping = xnew(struct dropping);
    dropping->stick = stick_ref(stick);
    dropping->parent = xstrdup(usb->engine->cgroup_parent);
    dropping->name = steal_ptr(name);
    dropping->timer.data = dropping;
    uv_timer_init(usb->engine->loop, &dropping->timer);
    uv_unref((uv_handle_t *)&dropping->timer);
    uv_timer_start(&dropping->timer, on_drop, DROP_AGAIN_MS, DROP_AGAIN_MS);
}
