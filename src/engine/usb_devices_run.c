/*
 * The node of a device in a running container and the right to use it, by `cloche-runtime update`:
 * a child that can be killed, since paths are looked up among what the container has put there. And
 * what the next daemon is to know of it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/log.h>
#include <base/loop.h>
#include <base/text.h>

#include "usb_internal.h"

enum { RUNTIME_TIMEOUT_MS = 10000, COMPLAINT_MAX = 1024, RECORD_MAX = 64 * 1024 };

/* --- the child -------------------------------------------------------------------------------- */

enum step { STEP_ADD, STEP_REMOVE, STEP_DENY };

struct passing {
    struct usb *usb;
    struct usb_pass pass; /* a copy: the one in the list may be gone by then */
    enum step step;
    int complaint_fd;
    usb_pass_done done;
    struct error why; /* it was not added; code 0: it was, or is removed */
};

static int run(struct passing *passing, enum step step, struct error *err);

static void finish(struct passing *passing, const struct error *err)
{
    passing->done(passing->usb, &passing->pass, err);
    close_fd(passing->complaint_fd);
    error_finish(&passing->why);
    free(passing);
}

/* Whatever the container has put in the node's place: it loses the right to the device. */
static void deny(struct passing *passing)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    if (run(passing, STEP_DENY, &err) < 0)
        finish(passing, passing->why.code ? &passing->why : &err);
}

static void on_ended(int status, void *data)
{
    struct passing *passing = data;
    _cleanup_error_ struct error err = ERROR_INIT;
    char text[COMPLAINT_MAX + 1] = "";

    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        finish(passing, passing->why.code ? &passing->why : NULL);
        return;
    }
    ssize_t length = pread(passing->complaint_fd, text, COMPLAINT_MAX, 0);
    while (length > 0 && text[length - 1] == '\n')
        length--;
    if (WIFSIGNALED(status))
        error_set(&err, -ETIMEDOUT, "what is at that path in the container does not answer");
    else
        error_set(&err, -EIO, "%.*s", length > 0 ? (int)length : 0, text);
    if (passing->step == STEP_REMOVE && !passing->usb->ending) {
        log_failure(LOG_INFO, &err, "USB %s stays in /dev of container %.12s", passing->pass.port,
                    passing->pass.container);
        deny(passing);
    } else if (passing->step == STEP_ADD && WIFSIGNALED(status) && !passing->usb->ending) {
        error_move(&passing->why, &err);
        deny(passing); /* it may have come so far */
    } else {
        finish(passing, passing->why.code ? &passing->why : &err);
    }
}

/* An option of `cloche-runtime update` and its value. Owned. */
static char *option_of(const struct usb_pass *pass, enum step step, const char **ret_name)
{
    const char *access = pass->read_only ? "r" : "rw";

    if (step == STEP_ADD) {
        *ret_name = "--device-add";
        return xasprintf("%c:%u:%u:%s:%s", pass->type, pass->major_number, pass->minor_number,
                         pass->node, access);
    }
    if (step == STEP_REMOVE) {
        *ret_name = "--device-remove";
        return xstrdup(pass->node);
    }
    *ret_name = "--device-deny";
    return xasprintf("%c %u:%u %s", pass->type, pass->major_number, pass->minor_number, access);
}

static int run(struct passing *passing, enum step step, struct error *err)
{
    const struct engine *engine = passing->usb->engine;
    _cleanup_free_ char *root = xasprintf("%s/runtime", engine->instance->run);
    const char *name;
    _cleanup_free_ char *value = option_of(&passing->pass, step, &name);
    char *const argv[] = {(char *)"cloche-runtime",
                          (char *)"--root",
                          root,
                          (char *)"update",
                          (char *)(uintptr_t)name,
                          value,
                          passing->pass.container,
                          NULL};
    struct process process;

    passing->step = step;
    close_fd(passing->complaint_fd);
    passing->complaint_fd = memfd_create("usb-device", MFD_CLOEXEC);
    if (passing->complaint_fd < 0)
        return error_errno(err, errno, "make a file in memory");
    const int fds[] = {-1, -1, passing->complaint_fd};
    const struct process_spec spec = {
        .path = engine->runtime_program,
        .argv = argv,
        .fds = fds,
        .fds_count = ARRAY_SIZE(fds),
        .directory = "/",
    };
    int r = process_spawn(&spec, &process, err);
    if (r < 0)
        return r;
    return loop_watch_child(engine->loop, &process, RUNTIME_TIMEOUT_MS, on_ended, passing, err);
}

int usb_pass_run(struct usb *usb, const struct usb_pass *pass, bool add, usb_pass_done done,
                 struct error *err)
{
    struct passing *passing = xnew(struct passing);

    *passing = (struct passing){.usb = usb, .pass = *pass, .complaint_fd = -1, .done = done};
    int r = run(passing, add ? STEP_ADD : STEP_REMOVE, err);
    if (r < 0) {
        close_fd(passing->complaint_fd);
        free(passing);
    }
    return r;
}

/* --- the next daemon -------------------------------------------------------------------------- */

static char *record_path(const struct container *container)
{
    return container_run_path(container, "usb-devices.json");
}

static void append(struct usb_settings_passes *record, const struct usb_pass *pass)
{
    struct usb_settings_passed *passed = xnew(struct usb_settings_passed);

    *passed = (struct usb_settings_passed){
        .port = xstrdup(pass->port),
        .bus = pass->bus,
        .device = pass->device,
        .major = pass->major_number,
        .minor = pass->minor_number,
    };
    record->devices =
        xrealloc(record->devices, record->devices_count + 1, sizeof(struct usb_settings_passed *));
    record->devices[record->devices_count++] = passed;
}

void usb_passes_record(const struct usb *usb, const struct container *container)
{
    struct usb_settings_passes *record = xnew(struct usb_settings_passes);
    _cleanup_free_ char *path = record_path(container);
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    _cleanup_error_ struct error err = ERROR_INIT;

    record->version = 1;
    record->pid = container->record->pid;
    record->devices = xnew_array(struct usb_settings_passed *, 1);
    for (const struct usb_pass *pass = usb->passes; pass; pass = pass->next) {
        if (text_equal(pass->container, container->id) && pass->state != PASS_REFUSED)
            append(record, pass);
    }
    usb_settings_passes_write(record, &text);
    usb_settings_passes_free(record);
    if (file_replace_at(AT_FDCWD, path, text.data, text.length, 0600, &err) < 0)
        log_failure(LOG_ERROR, &err, "the next daemon will not know the USB devices of %.12s",
                    container->id);
}

void usb_passes_load(struct usb *usb, const struct container *container)
{
    _cleanup_usb_settings_passes_ struct usb_settings_passes *record = NULL;
    _cleanup_free_ char *path = record_path(container), *text = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;
    size_t length;
    int r = file_read_at(AT_FDCWD, path, RECORD_MAX, &text, &length, &err);

    if (r == -ENOENT)
        return;
    if (r >= 0)
        r = usb_settings_passes_parse(text, length, path, &record, &err);
    if (r < 0) {
        log_failure(LOG_ERROR, &err, "which USB devices container %.12s has is not known",
                    container->id);
        return;
    }
    for (size_t i = 0; record->pid == container->record->pid && i < record->devices_count; i++) {
        const struct usb_settings_passed *passed = record->devices[i];
        struct usb_pass *pass = xnew(struct usb_pass);
        *pass = (struct usb_pass){
            .next = usb->passes,
            .type = 'c',
            .pid = (pid_t)record->pid,
            .bus = passed->bus,
            .device = passed->device,
            .major_number = passed->major,
            .minor_number = passed->minor,
            .state = PASS_THERE,
        };
        snprintf(pass->container, sizeof(pass->container), "%s", container->id);
        snprintf(pass->port, sizeof(pass->port), "%.*s", USB_PORT_MAX - 1, passed->port);
        snprintf(pass->node, sizeof(pass->node), "/dev/bus/usb/%03u/%03u", pass->bus, pass->device);
        usb->passes = pass;
    }
}
