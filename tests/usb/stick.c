#include "stick.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "../../src/usb/device/usbip.h"
#include "../../src/usb/device/wire.h"
#include "stick_internal.h"

enum { INPUT = (2 << 20) + USBIP_HEADER, REPLIES = 64 };

static const char bus_id[] = "1-1";

/* Options and faults. */

static const char *const fault_names[] = {
#define X(name, text) text,
    STICK_FAULTS(X)
#undef X
};

static bool note(struct stick *stick, enum stick_fault fault, bool is_now)
{
    if (is_now)
        atomic_fetch_add(&stick->fired[fault], 1);
    return is_now;
}

bool stick_always_has(struct stick *stick, enum stick_fault fault)
{
    return note(stick, fault, stick->faults[fault].active);
}

bool stick_has(const struct stick *stick, enum stick_fault fault)
{
    const struct fault *found = &stick->faults[fault];
    bool is_now = found->active;
    if (is_now && fault < STICK_NO_MEDIUM)
        is_now = stick->data_command && stick->counts.data_commands >= found->first &&
                 stick->counts.data_commands <= found->last;
    return note((struct stick *)stick, fault, is_now);
}

unsigned stick_fired(const struct stick *stick, const char *text)
{
    size_t length = strcspn(text, "@ ");
    for (int i = 0; i < STICK_FAULT_COUNT; i++)
        if (strlen(fault_names[i]) == length && memcmp(fault_names[i], text, length) == 0)
            return atomic_load(&stick->fired[i]);
    return 0;
}

struct stick *stick_interface(struct stick *stick, unsigned number)
{
    return number == 0                          ? stick
           : number < stick->options.interfaces ? stick->interfaces[number]
                                                : NULL;
}

struct stick *stick_of_endpoint(struct stick *stick, uint8_t endpoint)
{
    unsigned number = endpoint & 0x0F;
    unsigned later = number < LATER_ENDPOINTS ? 0 : 1 + (number - LATER_ENDPOINTS) / 2;
    struct stick *found = stick_interface(stick, later);
    return found ? found : stick;
}

bool stick_add_fault(struct stick *stick, const char *text)
{
    if (text[0] >= '0' && text[0] <= '9' && text[1] == ':') {
        struct stick *one = stick_interface(stick, (unsigned)(text[0] - '0'));
        return one && stick_add_fault(one, text + 2);
    }
    size_t length = strcspn(text, "@");
    struct fault fault = {.active = true, .first = 1, .last = 1};
    if (text[length]) {
        char *end;
        fault.first = fault.last = (unsigned)strtoul(text + length + 1, &end, 10);
        if (*end == '+')
            fault.last = UINT32_MAX;
    }
    for (int i = 0; i < STICK_FAULT_COUNT; i++) {
        if (strlen(fault_names[i]) != length || memcmp(fault_names[i], text, length) != 0)
            continue;
        stick->faults[i] = fault;
        for (unsigned unit = 0; unit < UNITS_MAX; unit++) {
            stick->units[unit].absent |= i == STICK_NO_MEDIUM;
            stick->units[unit].attention |= i == STICK_ATTENTION;
            stick->units[unit].not_ready |= i == STICK_BECOMES_READY ? 5 : 0;
        }
        return true;
    }
    return false;
}

void stick_list_faults(FILE *file)
{
    for (int i = 0; i < STICK_FAULT_COUNT; i++)
        fprintf(file, "  %s\n", fault_names[i]);
}

struct stick *stick_create(const struct stick_options *options, const char **ret_error)
{
    struct stick *stick = calloc(1, sizeof(*stick));
    if (!stick)
        abort();
    stick->options = *options;
    stick->options.units = options->units ? options->units : 1;
    stick->options.sector_size = options->sector_size ? options->sector_size : 512;
    stick->options.sectors = options->sectors ? options->sectors : 2048;
    stick->options.version = options->version ? options->version : 6;
    stick->options.interfaces = options->interfaces ? options->interfaces : 1;
    stick->options.configurations = options->configurations ? options->configurations : 1;
    stick_uas_reset(stick, stick->options.uas_only);
    stick->chance = options->chance;
    *ret_error = stick->options.interfaces > INTERFACES_MAX ? "too many interfaces"
                                                            : stick_map(stick, options->image);
    struct stick_options others = stick->options;
    others.interfaces = 1;
    others.image = NULL;
    for (unsigned i = 1; !*ret_error && i < stick->options.interfaces; i++)
        stick->interfaces[i] = stick_create(&others, ret_error);
    if (!*ret_error)
        return stick;
    free(stick);
    return NULL;
}

void stick_destroy(struct stick *stick)
{
    for (unsigned i = 1; i < stick->options.interfaces; i++)
        stick_destroy(stick->interfaces[i]);
    stick_unmap(stick);
    free(stick);
}

static void keep(struct stick *stick, bool all)
{
    uint32_t size = stick->options.sector_size;
    for (uint64_t at = 0; stick->kept && at < stick->disk_size; at += size)
        if (memcmp(stick->kept + at, stick->disk + at, size) != 0 &&
            (all || rand_r(&stick->chance) & 1))
            memcpy(stick->kept + at, stick->disk + at, size);
}

void stick_keep(struct stick *stick)
{
    keep(stick, true);
}

void stick_lose_power(struct stick *stick)
{
    keep(stick, false);
    if (stick->kept)
        memcpy(stick->disk, stick->kept, stick->disk_size);
}

uint8_t *stick_disk(struct stick *stick)
{
    return stick->disk;
}

struct stick_counts stick_counts(const struct stick *stick)
{
    return stick->counts;
}

/* The connection: commands from one buffer, answers gathered and sent together. */

struct server {
    struct stick *stick;
    int fd;
    uint8_t *input;
    size_t input_at, input_end;
    uint8_t headers[REPLIES][USBIP_HEADER];
    struct iovec vectors[2 * REPLIES];
    int replies, vector_count;
    uint8_t small[REPLIES][64]; /* answers that the next command would overwrite */
};

static bool send_all(struct server *server)
{
    struct iovec *at = server->vectors;
    int count = server->vector_count;
    while (count > 0) {
        struct msghdr header = {.msg_iov = at, .msg_iovlen = (size_t)count};
        ssize_t sent = sendmsg(server->fd, &header, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return false;
        while (count > 0 && (size_t)sent >= at->iov_len) {
            sent -= (ssize_t)at->iov_len;
            at++;
            count--;
        }
        if (count > 0) {
            at->iov_base = (uint8_t *)at->iov_base + sent;
            at->iov_len -= (size_t)sent;
        }
    }
    server->replies = server->vector_count = 0;
    return true;
}

/* False: the connection is at its end. */
static bool receive_more(struct server *server, size_t wanted)
{
    if (!send_all(server))
        return false;
    if (server->input_at > 0) {
        memmove(server->input, server->input + server->input_at,
                server->input_end - server->input_at);
        server->input_end -= server->input_at;
        server->input_at = 0;
    }
    if (wanted > INPUT)
        return false;
    while (server->input_end < wanted) {
        ssize_t got =
            recv(server->fd, server->input + server->input_end, INPUT - server->input_end, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        server->input_end += (size_t)got;
    }
    return true;
}

/* The next `size` bytes, which stay until the next call; NULL at the end. */
static const uint8_t *take(struct server *server, size_t size)
{
    if (server->input_end - server->input_at < size && !receive_more(server, size))
        return NULL;
    server->input_at += size;
    return server->input + server->input_at - size;
}

static bool give(struct server *server, const void *data, size_t size)
{
    server->vectors[server->vector_count++] = (struct iovec){(void *)data, size};
    return true;
}

static void reply(struct server *server, uint32_t number, bool in, const struct result *result)
{
    struct stick *stick = server->stick;
    bool is_answer = result->data == stick->answer;
    for (unsigned i = 1; i < stick->options.interfaces; i++)
        is_answer |= result->data == stick->interfaces[i]->answer;
    if (server->replies == REPLIES)
        send_all(server);
    uint8_t *header = server->headers[server->replies];
    memset(header, 0, USBIP_HEADER);
    put_be32(header, USBIP_RET_SUBMIT);
    put_be32(header + 4, stick_has(stick, STICK_WRONG_ANSWER) ? number + 1000 : number);
    put_be32(header + 20, (uint32_t)result->status);
    put_be32(header + 24, result->actual + (stick_has(stick, STICK_TOO_MUCH) ? 1 << 20 : 0));
    bool cut = stick_has(stick, STICK_CUT_ANSWER);
    give(server, header, cut ? USBIP_HEADER / 2 : USBIP_HEADER);
    stick->ended |= cut;
    if (in && result->actual > 0 && !cut) {
        bool small = result->actual <= sizeof(server->small[0]);
        const void *data =
            small ? memcpy(server->small[server->replies], result->data, result->actual)
                  : result->data;
        /* Amid the data: half of it. */
        give(server, data, stick->ended ? result->actual / 2 : result->actual);
    }
    server->replies++;
    if (in && result->actual > sizeof(server->small[0]) && is_answer)
        send_all(server);
}

static void take_urb(struct stick *stick, unsigned i)
{
    memmove(stick->urbs + i, stick->urbs + i + 1,
            (--stick->urb_count - i) * sizeof(stick->urbs[0]));
}

/* The oldest of its endpoint. */
static bool is_next(const struct stick *stick, unsigned i)
{
    for (unsigned j = 0; j < i; j++)
        if (stick->urbs[j].endpoint == stick->urbs[i].endpoint)
            return false;
    return true;
}

static void serve_waiting(struct server *server)
{
    struct stick *stick = server->stick;
    struct result result;
    for (unsigned i = 0; i < stick->urb_count && !stick->ended;) {
        struct urb urb = stick->urbs[i];
        bool is_key = urb.endpoint == EP_STATUS && !stick->uas.on; /* nobody presses one */
        bool done =
            is_next(stick, i) && !is_key &&
            (stick->uas.on ? stick_uas_in(stick, urb.endpoint, urb.length, &result)
                           : stick_in(stick_of_endpoint(stick, urb.endpoint), urb.length, &result));
        if (done) {
            take_urb(stick, i);
            reply(server, urb.number, true, &result);
        }
        i = done ? 0 : i + 1; /* others may have something now */
    }
}

static bool submitted(struct server *server, const uint8_t *header)
{
    struct stick *stick = server->stick;
    uint32_t number = get_be32(header + 4), endpoint = get_be32(header + 16);
    uint32_t length = get_be32(header + 24);
    bool in = get_be32(header + 12) != 0;
    uint8_t setup[8];
    memcpy(setup, header + 40, sizeof(setup));
    const uint8_t *data = in ? NULL : take(server, length);
    if ((!in && !data) || (in && stick->urb_count == URBS_MAX))
        return false;
    if (stick->dead)
        return true;
    if (endpoint == 0) {
        struct result result = stick_control(stick, setup, data, length);
        reply(server, number, in, &result);
    } else if (in) {
        stick->urbs[stick->urb_count++] = (struct urb){number, length, (uint8_t)(0x80 | endpoint)};
    } else {
        struct stick *one = stick_of_endpoint(stick, (uint8_t)endpoint);
        if (one->dead)
            return true;
        struct result result = stick->uas.on ? stick_uas_out(stick, (uint8_t)endpoint, data, length)
                                             : stick_out(one, data, length);
        if (result.status != -EINPROGRESS)
            reply(server, number, false, &result);
    }
    serve_waiting(server);
    return true;
}

static bool unlinked(struct server *server, const uint8_t *header)
{
    struct stick *stick = server->stick;
    uint32_t number = get_be32(header + 4), victim = get_be32(header + 20);
    if (server->replies == REPLIES)
        send_all(server);
    uint8_t *answer = server->headers[server->replies++];
    memset(answer, 0, USBIP_HEADER);
    put_be32(answer, USBIP_RET_UNLINK);
    put_be32(answer + 4, number);
    put_be32(answer + 20, (uint32_t)-ECONNRESET);
    for (unsigned i = 0; i < stick->urb_count; i++) {
        if (stick->urbs[i].number != victim)
            continue;
        take_urb(stick, i);
        break;
    }
    return give(server, answer, USBIP_HEADER);
}

/* What describes the device; interfaces only in the list. */
static void describe(struct server *server, uint8_t *at)
{
    const uint8_t *device;
    stick_descriptor(server->stick, 0x100, &device);
    memset(at, 0, USBIP_DEVICE);
    strcpy((char *)at, "/sys/devices/cloche/usb1/1-1");
    strcpy((char *)at + 256, bus_id);
    put_be32(at + USBIP_DEVICE_BUS, 1);
    put_be32(at + USBIP_DEVICE_NUMBER, 2);
    put_be32(at + USBIP_DEVICE_SPEED, 3);
    put_be16(at + 300, get_le16(device + 8));
    put_be16(at + 302, get_le16(device + 10));
    put_be16(at + 304, get_le16(device + 12));
    at[309] = 1;
    at[310] = 1;
    at[311] = 1;
}

/* Lists and import. 1: imported, 0: the end. */
static bool begin(struct server *server)
{
    uint8_t answer[USBIP_OPERATION + 4 + USBIP_DEVICE + 4] = {0};
    const uint8_t *request = take(server, USBIP_OPERATION);
    if (!request || get_be16(request) != USBIP_VERSION)
        return false;
    uint16_t code = get_be16(request + 2);
    put_be16(answer, USBIP_VERSION);
    if (code == USBIP_REQ_DEVLIST) {
        put_be16(answer + 2, USBIP_REP_DEVLIST);
        put_be32(answer + 8, 1);
        describe(server, answer + 12);
        memcpy(answer + 12 + USBIP_DEVICE, (uint8_t[]){8, 6, 0x50, 0}, 4);
        give(server, answer, sizeof(answer));
        send_all(server);
        return false;
    }
    const uint8_t *wanted = code == USBIP_REQ_IMPORT ? take(server, USBIP_BUS_ID) : NULL;
    if (!wanted)
        return false;
    bool found = strncmp((const char *)wanted, bus_id, USBIP_BUS_ID) == 0;
    put_be16(answer + 2, USBIP_REP_IMPORT);
    put_be32(answer + 4, !found);
    describe(server, answer + USBIP_OPERATION);
    give(server, answer, USBIP_OPERATION + (found ? USBIP_DEVICE : 0));
    return send_all(server) && found;
}

void stick_serve(struct stick *stick, int fd)
{
    struct server *server = calloc(1, sizeof(*server));
    server->stick = stick;
    server->fd = fd;
    server->input = malloc(INPUT);
    bool going = begin(server);
    while (going && !stick->ended) {
        uint8_t header[USBIP_HEADER];
        const uint8_t *command = take(server, USBIP_HEADER);
        if (!command)
            break;
        memcpy(header, command, USBIP_HEADER);
        going = get_be32(header) == USBIP_SUBMIT   ? submitted(server, header)
                : get_be32(header) == USBIP_UNLINK ? unlinked(server, header)
                                                   : false;
        /* Data of the stick's own may change with the next command. */
    }
    send_all(server);
    stick->urb_count = 0;
    stick->ended = false;
    for (unsigned i = 0; i < stick->options.interfaces; i++)
        stick_bulk_reset(stick_interface(stick, i));
    stick_uas_reset(stick, stick->options.uas_only);
    free(server->input);
    free(server);
}
