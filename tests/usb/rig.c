#include "rig.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <base/alloc.h>

void (*rig_adjust)(struct usb_transport *transport);

static const struct usb_stick_options quick = {
    .command_ms = 300,
    .recovery_ms = 300,
    .patience_ms = 1500,
    .look_ms = 30,
};

static void *serve(void *data)
{
    struct rig *rig = data;
    stick_serve(rig->model, rig->fds[1]);
    shutdown(rig->fds[1], SHUT_RDWR);
    return NULL;
}

static void eject_done(int result, void *data)
{
    ((struct rig *)data)->ejected = result; /* the lock is held */
}

/* With the lock. */
static void look(struct rig *rig)
{
    for (unsigned i = 0; i < rig->facts.units; i++) {
        usb_stick_unit(rig->stick, i, &rig->units[i]);
        if (rig->wants_disk[i]) {
            rig->disks[i] = usb_stick_disk(rig->stick, i);
            rig->wants_disk[i] = !rig->disks[i]; /* not ready any more: when it is again */
        }
    }
    if (rig->wants_eject) {
        int r = usb_stick_eject(rig->stick, 0, eject_done, rig, NULL);
        rig->ejected = r ? r : 1;
        rig->wants_eject = false;
    }
    usb_stick_counts(rig->stick, &rig->counts);
    pthread_cond_broadcast(&rig->changed);
}

static void *run_device(void *data)
{
    struct rig *rig = data;
    struct usb_transport *transport = NULL;
    struct usb_stick *stick = NULL;
    struct error err = ERROR_INIT;
    int r = usb_usbip_open(rig->fds[0], "1-1", 1000, &transport, &err);
    if (r == 0 && rig_adjust)
        rig_adjust(transport);
    if (r == 0)
        r = usb_stick_open(transport, &quick, NULL, NULL, &stick, &err);
    pthread_mutex_lock(&rig->lock);
    rig->opened = r;
    rig->stick = stick;
    snprintf(rig->message, sizeof(rig->message), "%s", error_message(&err));
    if (r == 0)
        rig->facts = *usb_stick_facts(stick);
    pthread_cond_broadcast(&rig->changed);
    pthread_mutex_unlock(&rig->lock);
    error_finish(&err);
    while (r == 0 && !atomic_load(&rig->stop)) {
        /* The callback of an eject runs within: the lock is held where it is set. */
        r = usb_stick_run(stick, 5, NULL);
        pthread_mutex_lock(&rig->lock);
        look(rig);
        rig->over = r != 0;
        pthread_mutex_unlock(&rig->lock);
    }
    if (stick)
        usb_stick_close(stick);
    return NULL;
}

struct rig *rig_start(const struct stick_options *options, const char *faults)
{
    struct rig *rig = xnew(struct rig);
    struct stick_options usual = {.sectors = SECTORS};
    const char *error = NULL;
    char *text = xstrdup(faults), *rest = text;
    rig->model = stick_create(options ? options : &usual, &error);
    assert_non_null(rig->model);
    for (char *name; (name = strtok_r(rest, " ", &rest));)
        assert_true(stick_add_fault(rig->model, name));
    free(text);
    uint8_t *disk = stick_disk(rig->model);
    for (size_t i = 0; i < BIG; i++)
        disk[i] = (uint8_t)(i / 512 * 7 + i);
    pthread_mutex_init(&rig->lock, NULL);
    pthread_cond_init(&rig->changed, NULL);
    rig->opened = rig->ejected = 1;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, rig->fds), 0);
    assert_int_equal(pthread_create(&rig->server, NULL, serve, rig), 0);
    assert_int_equal(pthread_create(&rig->device, NULL, run_device, rig), 0);
    return rig;
}

struct block_device *rig_disk(struct rig *rig, unsigned unit)
{
    wait_for(rig, rig->units[unit].state == USB_UNIT_READY);
    pthread_mutex_lock(&rig->lock);
    rig->wants_disk[unit] = true;
    pthread_mutex_unlock(&rig->lock);
    wait_for(rig, !rig->wants_disk[unit]);
    assert_non_null(rig->disks[unit]);
    return rig->disks[unit];
}

struct usb_unit_facts rig_unit(struct rig *rig, unsigned unit)
{
    pthread_mutex_lock(&rig->lock);
    struct usb_unit_facts facts = rig->units[unit];
    pthread_mutex_unlock(&rig->lock);
    return facts;
}

struct usb_stick_counts rig_counts(struct rig *rig)
{
    pthread_mutex_lock(&rig->lock);
    struct usb_stick_counts counts = rig->counts;
    pthread_mutex_unlock(&rig->lock);
    return counts;
}

struct rig *rig_start_ready(const struct stick_options *options, const char *faults)
{
    struct rig *rig = rig_start(options, faults);
    wait_for(rig, rig->opened != 1);
    if (rig->opened != 0)
        fail_msg("%s: %s", faults, rig->message);
    return rig;
}

void rig_finish(struct rig *rig)
{
    for (int i = 0; i < 16; i++)
        block_device_destroy(rig->disks[i]);
    atomic_store(&rig->stop, true);
    pthread_join(rig->device, NULL);
    pthread_join(rig->server, NULL);
    close(rig->fds[1]);
    stick_destroy(rig->model);
    pthread_mutex_destroy(&rig->lock);
    pthread_cond_destroy(&rig->changed);
    free(rig);
}
