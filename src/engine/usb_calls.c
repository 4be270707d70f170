/*
 * What clients ask of USB devices.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <engine/usb.h>

#include "usb_internal.h"
#include "usb_url.h"

enum { FINDINGS_MAX = 1000 };

/* --- attach, detach, eject -------------------------------------------------------------------- */

struct asked {
    engine_image_done done;
    void *data;
};

static void tell_stick(struct stick *stick, const struct error *err, void *data)
{
    struct asked *asked = data;
    _cleanup_api_usb_stick_ struct api_usb_stick *told = err ? NULL : usb_describe(stick);

    asked->done(err, told, asked->data);
    free(asked);
}

static void tell_nothing(struct stick *stick, const struct error *err, void *data)
{
    const struct api_empty nothing = {0};
    struct asked *asked = data;

    asked->done(err, err ? NULL : &nothing, asked->data);
    free(asked);
}

static int add_remote(struct usb *usb, const char *text, struct stick **ret, struct error *err)
{
    struct usb_url *url;
    char id[USB_ID_MAX];
    int r = usb_url_parse(text, &url, err);

    if (r < 0)
        return r;
    _cleanup_free_ char *whole = usb_url_text(url);
    usb_url_free(url);
    for (size_t i = 0; i < usb->sticks_count; i++) {
        if (usb->sticks[i]->url && text_equal(usb->sticks[i]->url, whole)) {
            *ret = usb->sticks[i];
            return 0;
        }
    }
    snprintf(id, sizeof(id), "remote-%u", ++usb->remotes);
    *ret = usb_stick_add(usb, id, whole);
    return *ret ? 0 : error_set(err, -ENOBUFS, "more than %d USB devices", USB_STICKS_MAX);
}

static int find_to_attach(struct engine *engine, const char *reference, struct stick **ret,
                          struct error *err)
{
    bool remote = text_starts_with(reference, "usbip:");
    int r = remote ? usb_check_root(engine, "remote sticks", err) : 0;

    if (r == 0 && (engine->removing || engine->usb->ending))
        r = error_set(err, -EAGAIN, "the instance is being removed");
    if (r == 0)
        r = remote ? add_remote(engine->usb, reference, ret, err)
                   : usb_find(engine, reference, ret, err);
    if (r == 0 && !(*ret)->url && (*ret)->identified && !(*ret)->identity.storage) {
        r = error_set(err, -EINVAL, "USB device %s is no stick", (*ret)->id);
        error_hint(err,
                   "A container gets the device itself with: cloche run --device-usb %04x:%04x",
                   (*ret)->identity.vendor, (*ret)->identity.product);
    }
    return r;
}

/* One that is being let go of is attached when that is over, one that a daemon before had when it
 * was looked at. */
struct again {
    struct engine *engine;
    char *reference; /* owned */
    engine_image_done done;
    void *data;
};

static void attach(struct engine *engine, const char *reference, engine_image_done done,
                   void *data);

static void attach_again(struct stick *stick, const struct error *err, void *data)
{
    struct again *again = data;

    attach(again->engine, again->reference, again->done, again->data);
    free(again->reference);
    free(again);
}

static void attach_later(struct stick *stick, enum stick_wait what, const char *reference,
                         engine_image_done done, void *data)
{
    struct again *again = xnew(struct again);

    *again = (struct again){stick->usb->engine, xstrdup(reference), done, data};
    stick_wait(stick, what, attach_again, again);
}

static void attach(struct engine *engine, const char *reference, engine_image_done done, void *data)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct stick *stick = NULL;

    if (find_to_attach(engine, reference, &stick, &err) < 0) {
        done(&err, NULL, data);
        return;
    }
    if (stick->ending) {
        attach_later(stick, STICK_WAIT_END, reference, done, data);
        return;
    }
    if (!stick->url && !stick->identified) {
        attach_later(stick, STICK_WAIT_LOOK, reference, done, data);
        return;
    }
    struct asked *asked = xnew(struct asked);
    *asked = (struct asked){done, data};
    stick->wanted = true;
    if (stick->state == STICK_READY) {
        stick_record(stick);
        tell_stick(stick, NULL, asked);
        return;
    }
    if (stick->state == STICK_EJECTED || stick->state == STICK_FAILED) {
        stick->state = STICK_IDLE;
        stick->failures = 0;
    }
    stick_ref(stick);
    stick_wait(stick, STICK_WAIT_READY, tell_stick, asked);
    stick_settle(stick);
    stick_unref(stick);
}

void engine_usb_attach(struct engine *engine, const struct api_usb_attach *what,
                       engine_image_done done, void *data)
{
    attach(engine, what->stick, done, data);
}

static void let_go(struct engine *engine, const char *reference, bool eject, engine_image_done done,
                   void *data)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct stick *stick = NULL;
    int r = usb_find(engine, reference, &stick, &err);

    if (r == 0 && !stick->pid && !stick->starting && !stick->url)
        r = error_set(&err, -ENOTCONN, "USB device %s is not attached", stick->id);
    if (r < 0) {
        done(&err, NULL, data);
        return;
    }
    struct asked *asked = xnew(struct asked);
    *asked = (struct asked){done, data};
    stick->wanted = false;
    stick_ref(stick);
    stick_wait(stick, STICK_WAIT_END, tell_nothing, asked);
    if (eject)
        stick_event(stick, "eject", NULL, NULL);
    if (stick->pid || stick->starting)
        stick_let_go(stick, eject);
    else
        stick_gone(stick);
    stick_unref(stick);
}

void engine_usb_detach(struct engine *engine, const char *reference, engine_image_done done,
                       void *data)
{
    let_go(engine, reference, false, done, data);
}

void engine_usb_eject(struct engine *engine, const char *reference, engine_image_done done,
                      void *data)
{
    let_go(engine, reference, true, done, data);
}

/* --- what its process does -------------------------------------------------------------------- */

struct stick_call {
    struct stick_call *next;
    struct stick *stick; /* a reference */
    uint64_t id;
    engine_usb_progress progress; /* or NULL */
    struct api_usb_checked *checked;
    engine_image_done done;
    void *data;
};

static struct stick_call *call_new(struct stick *stick, engine_usb_progress progress,
                                   engine_image_done done, void *data)
{
    struct stick_call *call = xnew(struct stick_call);

    *call = (struct stick_call){.next = stick->calls,
                                .stick = stick_ref(stick),
                                .progress = progress,
                                .done = done,
                                .data = data};
    stick->calls = call;
    return call;
}

static void call_finish(struct stick_call *call, const struct error *err, const void *document)
{
    struct stick *stick = call->stick;

    for (struct stick_call **at = &stick->calls; *at; at = &(*at)->next) {
        if (*at == call) {
            *at = call->next;
            break;
        }
    }
    call->done(err, err ? NULL : document, call->data);
    api_usb_checked_free(call->checked);
    free(call);
    stick_unref(stick);
}

void stick_progress(struct stick *stick, const struct usb_stick_progress *progress)
{
    for (struct stick_call *call = stick->calls; call; call = call->next) {
        if (call->id == progress->id && call->progress)
            call->progress(progress->done, progress->total, call->data);
    }
}

void stick_finding(struct stick *stick, const struct usb_stick_finding *finding)
{
    for (struct stick_call *call = stick->calls; call; call = call->next) {
        struct api_usb_checked *checked = call->checked;
        if (call->id != finding->id || !checked || checked->findings_count >= FINDINGS_MAX)
            continue;
        struct api_usb_finding *copy = xnew(struct api_usb_finding);
        copy->what = text_make_harmless(xstrdup(finding->what), "");
        copy->repaired = finding->repaired;
        checked->findings[checked->findings_count++] = copy;
    }
}

/* What makes it ready. */
static const struct {
    const char *text;
    bool attach;
} state_hints[] = {
    [STICK_DENIED] = {"See: cloche usb policy ls", false},
    [STICK_KERNEL] = {"See: cloche usb policy ls", false},
    [STICK_IDLE] = {"Have it served: ", true},
    [STICK_STARTING] = {"Wait for it: ", true},
    [STICK_READY] = {"It is being let go of", false},
    [STICK_WAITING] = {"Wait for it: ", true},
    [STICK_FAILED] = {"Try again: ", true},
    [STICK_EJECTED] = {"Plug it in again, or: ", true},
};

static int find_ready(struct engine *engine, const char *reference, struct stick **ret,
                      struct error *err)
{
    int r = usb_find(engine, reference, ret, err);

    if (r < 0 || ((*ret)->state == STICK_READY && (*ret)->link && !(*ret)->ending))
        return r;
    enum stick_state state = (*ret)->state;
    bool attach = state_hints[state].attach;
    error_set(err, -ENOTCONN, "USB device %s is not ready: it is %s", (*ret)->id,
              (*ret)->ending ? "ending" : stick_state_names[state]);
    error_hint(err, "%s%s%s", state_hints[state].text, attach ? "cloche usb attach " : "",
               attach ? (*ret)->id : "");
    return -ENOTCONN;
}

static void on_statistics(const struct error *err, const struct usb_stick_result *result,
                          void *data)
{
    struct buffer text = BUFFER_INIT;
    struct api_usb_statistics told = {0};

    if (!err && result && result->stats)
        usb_stick_stats_write(result->stats, &text);
    else
        buffer_append_text(&text, "{}");
    told.statistics = buffer_steal(&text);
    call_finish(data, err, &told);
    free(told.statistics);
}

void engine_usb_statistics(struct engine *engine, const char *reference, engine_image_done done,
                           void *data)
{
    struct usb_stick_nothing nothing = {0};
    struct usb_stick_request request = {.stats = &nothing};
    _cleanup_error_ struct error err = ERROR_INIT;
    struct stick *stick;

    if (find_ready(engine, reference, &stick, &err) < 0) {
        done(&err, NULL, data);
        return;
    }
    usb_link_request(stick->link, &request, -1, on_statistics, call_new(stick, NULL, done, data));
}

/* The volume that is meant when nobody says: the only one. */
static int find_only(const struct stick *stick, uint32_t *ret, struct error *err)
{
    const struct usb_stick_status *status = stick->status;
    _cleanup_buffer_ struct buffer numbers = BUFFER_INIT;

    if (!status || !status->volumes_count)
        return error_set(err, -ENOENT, "USB device %s has no volume", stick->id);
    if (status->volumes_count == 1) {
        *ret = status->volumes[0]->number;
        return 0;
    }
    for (size_t i = 0; i < status->volumes_count; i++)
        buffer_printf(&numbers, "%s%u", i ? ", " : "", status->volumes[i]->number);
    error_set(err, -EINVAL, "USB device %s has several volumes", stick->id);
    error_hint(err, "say which one, by --volume: %s", buffer_text(&numbers));
    return -EINVAL;
}

static void on_formatted(const struct error *err, const struct usb_stick_result *result, void *data)
{
    const struct api_empty nothing = {0};
    struct stick_call *call = data;

    if (!err)
        stick_ask_status(call->stick);
    call_finish(call, err, &nothing);
}

/* For which its process may lock the medium in. */
static void will_write(struct stick *stick)
{
    stick->locked = true;
    stick_record(stick);
}

struct stick_call *engine_usb_format(struct engine *engine, const struct api_usb_format *how,
                                     engine_usb_progress progress, engine_image_done done,
                                     void *data)
{
    struct usb_stick_format what = {.kind = how->kind,
                                    .label = how->label,
                                    .cluster_size = how->cluster_size,
                                    .has_cluster_size = how->has_cluster_size,
                                    .volume = how->volume,
                                    .has_volume = true};
    struct usb_stick_request request = {.format = &what};
    _cleanup_error_ struct error err = ERROR_INIT;
    struct stick *stick;
    int r = find_ready(engine, how->stick, &stick, &err);

    if (r == 0 && !how->has_volume && stick->status && !stick->status->volumes_count &&
        stick->status->units_count == 1) { /* nothing is on it: all of it */
        what.has_volume = false;
        what.has_unit = true;
        what.unit = stick->status->units[0]->number;
    } else if (r == 0 && !how->has_volume) {
        r = find_only(stick, &what.volume, &err);
    }
    if (r < 0) {
        done(&err, NULL, data);
        return NULL;
    }
    struct stick_call *call = call_new(stick, progress, done, data);
    will_write(stick);
    call->id = usb_link_request(stick->link, &request, -1, on_formatted, call);
    return call;
}

static void on_checked(const struct error *err, const struct usb_stick_result *result, void *data)
{
    struct stick_call *call = data;

    if (!err && result && result->check)
        call->checked->left = result->check->left;
    call_finish(call, err, call->checked);
}

struct stick_call *engine_usb_check(struct engine *engine, const struct api_usb_check *how,
                                    engine_usb_progress progress, engine_image_done done,
                                    void *data)
{
    struct usb_stick_check what = {
        .volume = how->volume, .repair = how->repair, .has_repair = true};
    struct usb_stick_request request = {.check = &what};
    _cleanup_error_ struct error err = ERROR_INIT;
    struct stick *stick;
    int r = find_ready(engine, how->stick, &stick, &err);

    if (r == 0 && !how->has_volume)
        r = find_only(stick, &what.volume, &err);
    if (r < 0) {
        done(&err, NULL, data);
        return NULL;
    }
    struct stick_call *call = call_new(stick, progress, done, data);
    call->checked = xnew(struct api_usb_checked);
    call->checked->findings = xnew_array(struct api_usb_finding *, FINDINGS_MAX + 1);
    if (how->repair)
        will_write(stick);
    call->id = usb_link_request(stick->link, &request, -1, on_checked, call);
    return call;
}

void engine_usb_cancel(struct stick_call *call)
{
    struct usb_stick_cancel what = {.request = call->id};
    struct usb_stick_request request = {.cancel = &what};

    if (call->stick->link)
        usb_link_request(call->stick->link, &request, -1, NULL, NULL);
}
