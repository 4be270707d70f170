#include "model_transport.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/clock.h>

#include "../../src/usb/device/wire.h"
#include "stick_internal.h"

enum { PENDING_MAX = 256, PIECE = 64 << 10, LONG_MS = 1000 };

struct model_transport {
    struct usb_transport transport; /* first */
    struct stick *stick;
    struct model_transport_options options;
    struct usb_transfer *pending[PENDING_MAX]; /* the oldest first */
    bool cancelled[PENDING_MAX];
    unsigned count;
};

static struct model_transport *model_of(struct usb_transport *transport)
{
    return (struct model_transport *)transport;
}

static int submit(struct usb_transport *transport, struct usb_transfer *transfer)
{
    struct model_transport *model = model_of(transport);
    if (model->stick->ended)
        return -ENODEV;
    if (model->count == PENDING_MAX)
        return -ENOMEM;
    transfer->deadline = transfer->timeout_ms ? clock_ticks() + transfer->timeout_ms : 0;
    model->cancelled[model->count] = false;
    model->pending[model->count++] = transfer;
    return 0;
}

static void cancel(struct usb_transport *transport, struct usb_transfer *transfer)
{
    struct model_transport *model = model_of(transport);
    for (unsigned i = 0; i < model->count; i++)
        if (model->pending[i] == transfer)
            model->cancelled[i] = true;
}

static void end(struct model_transport *model, unsigned i, enum usb_status status, uint32_t actual)
{
    struct usb_transfer *transfer = model->pending[i];
    model->count--;
    memmove(model->pending + i, model->pending + i + 1,
            (model->count - i) * sizeof(model->pending[0]));
    memmove(model->cancelled + i, model->cancelled + i + 1, model->count - i);
    if (model->options.ends && status != USB_GONE)
        model->options.ends(transfer, &status, &actual);
    usb_transport_end(&model->transport, transfer, status, actual);
}

static void put_setup(uint8_t *at, const struct usb_transfer *transfer)
{
    const struct usb_setup *setup = &transfer->setup;
    at[0] = setup->request_type;
    at[1] = setup->request;
    put_le16(at + 2, setup->value);
    put_le16(at + 4, setup->index);
    put_le16(at + 6, (uint16_t)transfer->length);
}

/* False: it waits. */
static bool carry_out(struct stick *stick, struct usb_transfer *transfer, struct result *result)
{
    bool in = transfer->endpoint & 0x80;
    uint8_t setup[8];
    if (stick->dead)
        return false;
    if ((transfer->endpoint & 0x0F) == 0) {
        put_setup(setup, transfer);
        *result = stick_control(stick, setup, in ? NULL : transfer->data, transfer->length);
        return true;
    }
    if (in)
        return stick->uas.on ? stick_uas_in(stick, transfer->endpoint, transfer->length, result)
                             : stick_in(stick, transfer->length, result);
    *result = stick->uas.on
                  ? stick_uas_out(stick, transfer->endpoint, transfer->data, transfer->length)
                  : stick_out(stick, transfer->data, transfer->length);
    return result->status != -EINPROGRESS;
}

static bool is_next(const struct model_transport *model, unsigned i)
{
    for (unsigned j = 0; j < i; j++)
        if (model->pending[j]->endpoint == model->pending[i]->endpoint)
            return false;
    return true;
}

/* Whatever can be done now; others may be done behind it. */
static bool go_on(struct model_transport *model)
{
    for (unsigned i = 0; i < model->count && !model->stick->ended; i++) {
        struct usb_transfer *transfer = model->pending[i];
        struct result result = {0};
        if (!is_next(model, i) || !carry_out(model->stick, transfer, &result))
            continue;
        uint32_t actual = result.actual < transfer->length ? result.actual : transfer->length;
        if ((transfer->endpoint & 0x80) && actual > 0)
            memcpy(transfer->data, result.data, actual);
        end(model, i, usb_status_of_urb(result.status), actual);
        return true;
    }
    return false;
}

static void end_others(struct model_transport *model)
{
    int64_t now = clock_ticks();
    for (unsigned i = 0; i < model->count;) {
        if (model->stick->ended)
            end(model, i, USB_GONE, 0);
        else if (model->cancelled[i])
            end(model, i, USB_CANCELLED, 0);
        else if (model->pending[i]->deadline && model->pending[i]->deadline <= now)
            end(model, i, USB_TIMED_OUT, 0);
        else
            i++;
    }
}

static void collect(struct usb_transport *transport, int timeout_ms)
{
    struct model_transport *model = model_of(transport);
    bool any = false;
    while (go_on(model))
        any = true;
    if (!any && !transport->ended && timeout_ms != 0)
        model->options.time_goes_on(timeout_ms < 0 ? LONG_MS : timeout_ms);
    end_others(model);
}

/* What was submitted is not looked at before the next dispatch. */
static int next_timeout(struct usb_transport *transport)
{
    const struct model_transport *model = model_of(transport);
    int64_t now = clock_ticks(), first = -1;
    for (unsigned i = 0; i < model->count; i++) {
        int64_t left = model->pending[i]->deadline ? model->pending[i]->deadline - now : LONG_MS;
        if (first < 0 || left < first)
            first = left > 0 ? left : 0;
    }
    return (int)first;
}

static int watch(struct usb_transport *transport, int epoll, void *data, struct error *err)
{
    return 0;
}

/* The model is reset by its class's request; the port resets all of it. */
static int reset(struct usb_transport *transport)
{
    struct model_transport *model = model_of(transport);
    if (model->stick->ended)
        return -ENODEV;
    if (model->stick->dead)
        return -ETIMEDOUT;
    model->stick->counts.port_resets++;
    model->stick->in_halted = model->stick->out_halted = false;
    stick_bulk_reset(model->stick);
    stick_uas_reset(model->stick, model->stick->options.uas_only);
    return 0;
}

static void destroy(struct usb_transport *transport)
{
    free(transport);
}

static int alloc_streams(struct usb_transport *transport, uint16_t count, const uint8_t *endpoints,
                         unsigned endpoint_count)
{
    return -ENOTSUP;
}

static const struct usb_transport_ops ops = {
    .name = "model",
    .submit = submit,
    .cancel = cancel,
    .collect = collect,
    .reset = reset,
    .alloc_streams = alloc_streams,
    .watch = watch,
    .next_timeout = next_timeout,
    .destroy = destroy,
};

struct usb_transport *model_transport_create(struct stick *stick,
                                             const struct model_transport_options *options)
{
    struct model_transport *model = calloc(1, sizeof(*model));
    model->transport.ops = &ops;
    model->transport.speed = USB_HIGH;
    model->transport.max_transfer = PIECE;
    model->stick = stick;
    model->options = *options;
    return &model->transport;
}
