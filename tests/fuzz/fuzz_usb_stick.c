/*
 * libFuzzer target: a stick from its descriptors to its sectors, over the stick model in the same
 * process. The input says what kind of stick it is, which faults it has, which of its answers are
 * other ones, and what is asked of it.
 *
 * It opens or does not; every request is done once, with a result that there is; what it says of
 * itself is text and in bounds; it ends.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include <base/clock.h>
#include <base/log.h>
#include <usb/disk.h>

#include "../usb/model_transport.h"
#include "../usb/stick_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int fuzz_epoll_wait(int epoll, struct epoll_event *events, int count, int timeout_ms);

enum { STEPS_MOST = 64, REQUESTS = 8, MODEL_SECTORS = 64, SECTORS_MOST = 40, NEVER = 255 };

struct tried {
    struct block_request request;
    bool open;
};

static struct world {
    const uint8_t *input, *end;
    int64_t now;
    unsigned until; /* answers, before one is another one; NEVER: none is */
    struct block_device *disks[16];
    struct tried tried[REQUESTS];
    unsigned idle;
    bool ejecting;
} world;

static uint8_t memory[REQUESTS][SECTORS_MOST * 4096];

static void look(bool good)
{
    if (!good)
        abort();
}

static uint8_t next(void)
{
    return world.input < world.end ? *world.input++ : 0;
}

int64_t clock_ticks(void)
{
    return world.now;
}

int64_t clock_milliseconds(void)
{
    return world.now;
}

/* Nobody reads it. */
void log_failure(enum log_level level, const struct error *err, const char *format, ...)
{
}

static void time_goes_on(int milliseconds)
{
    world.now += milliseconds > 0 ? milliseconds : 1000;
}

int fuzz_epoll_wait(int epoll, struct epoll_event *events, int count, int timeout_ms)
{
    int ready = epoll_pwait(epoll, events, count, 0, NULL);
    if (ready == 0)
        time_goes_on(timeout_ms);
    return ready;
}

/* --- the stick -------------------------------------------------------------------------------- */

static void plan_change(void)
{
    world.until = world.input < world.end ? next() : NEVER;
}

static void change(struct usb_transfer *transfer, enum usb_status *status, uint32_t *actual)
{
    static const enum usb_status statuses[] = {USB_STALLED, USB_TIMED_OUT, USB_BABBLE, USB_FAILED};
    uint8_t how = next(), at = next();
    uint8_t *data = transfer->data;
    if (how < 16)
        *status = statuses[how % 4];
    else if (how < 64 && *actual > 0)
        *actual = at % *actual;
    else if (*actual > 0)
        data[at % *actual] = next();
}

static void ends(struct usb_transfer *transfer, enum usb_status *status, uint32_t *actual)
{
    if (!(transfer->endpoint & 0x80) || world.until == NEVER)
        return;
    if (world.until-- > 0)
        return;
    change(transfer, status, actual);
    plan_change();
}

static struct stick *make_stick(void)
{
    uint8_t kind = next(), more = next();
    const char *failure;
    const struct stick_options options = {
        .sectors = MODEL_SECTORS,
        .sector_size = kind & 1 ? 4096 : 512,
        .pretended = more & 1 ? UINT64_C(3) << 32 : 0,
        .units = kind & 2 ? 3 : 1,
        .read_only = kind & 4,
        .fixed = kind & 8,
        .uncached = kind & 16,
        .version = more & 2 ? 4 : 0,
        .uas = kind & 32,
        .uas_only = kind & 64,
    };
    struct stick *stick = stick_create(&options, &failure);
    look(stick != NULL);
    for (uint8_t faults = more >> 6; faults > 0; faults--) {
        struct fault *fault = &stick->faults[next() % STICK_FAULT_COUNT];
        uint8_t when = next();
        *fault = (struct fault){true, when % 8 + 1, when & 0x80 ? UINT32_MAX : when % 8 + 1};
    }
    plan_change();
    return stick;
}

/* --- what is asked of it ---------------------------------------------------------------------- */

static void changed(struct usb_stick *stick, unsigned unit, void *data)
{
    struct usb_unit_facts facts;
    usb_stick_unit(stick, unit, &facts);
    look(facts.state <= USB_UNIT_FAILED);
    look(strnlen(facts.vendor, sizeof(facts.vendor)) < sizeof(facts.vendor));
    look(strnlen(facts.serial, sizeof(facts.serial)) < sizeof(facts.serial));
    look(strnlen(facts.name, sizeof(facts.name)) < sizeof(facts.name));
}

static bool is_result(int result)
{
    switch (result) {
    case 0:
    case -EIO:
    case -ENODEV:
    case -EROFS:
    case -ENOMEDIUM:
    case -ETIMEDOUT:
    case -EINVAL:
    case -EOPNOTSUPP:
    case -ECANCELED:
        return true;
    default:
        return false;
    }
}

static void done(struct block_request *request)
{
    struct tried *tried = request->owner;
    look(tried->open && is_result(request->result));
    tried->open = false;
}

static void ejected(int result, void *data)
{
    look(world.ejecting);
    world.ejecting = false;
}

static void ask(struct block_device *disk)
{
    uint8_t what = next(), where = next(), count = next() % SECTORS_MOST;
    struct tried *tried = &world.tried[what / 4 % REQUESTS];
    if (!disk || tried->open)
        return;
    look(disk->sector_size >= 512 && disk->sector_size <= 4096 && disk->sectors > 0);
    uint64_t sector = where;
    if (where >= 128) /* at the end, and behind it */
        sector = disk->sectors + where - 200;
    if (where == 127)
        sector = UINT32_MAX - 2;
    tried->open = true;
    tried->request = (struct block_request){
        .operation = (enum block_operation)(what % 4),
        .sector = sector,
        .count = count + 1 > SECTORS_MOST ? SECTORS_MOST : count + 1U,
        .data = memory[tried - world.tried],
        .done = done,
        .owner = tried,
    };
    block_submit(disk, &tried->request);
}

static bool has_open(void)
{
    bool any = world.ejecting;
    for (int i = 0; i < REQUESTS; i++)
        any |= world.tried[i].open;
    return any;
}

static void use(struct usb_stick *stick, unsigned unit)
{
    struct error err = ERROR_INIT;
    uint8_t what = next();
    if (!world.disks[unit])
        world.disks[unit] = usb_stick_disk(stick, unit);
    switch (what % 8) {
    case 0:
        block_device_destroy(world.disks[unit]);
        world.disks[unit] = NULL;
        break;
    case 1:
        if (!world.ejecting)
            world.ejecting = usb_stick_eject(stick, unit, ejected, NULL, &err) == 0;
        break;
    case 2:
        world.now += 4000;
        break;
    default:
        ask(world.disks[unit]);
    }
    error_finish(&err);
}

/* Turns, until nothing is left to be done; each of a few seconds at most. */
static int run(struct usb_stick *stick)
{
    struct error err = ERROR_INIT;
    int r = 0;
    for (unsigned turns = 0; r == 0 && (turns < 40 || has_open()); turns++) {
        look(turns < 20000);
        r = usb_stick_run(stick, 1000, &err);
    }
    error_finish(&err);
    return r;
}

static void give_back(void)
{
    for (int i = 0; i < 16; i++)
        block_device_destroy(world.disks[i]);
    memset(world.disks, 0, sizeof(world.disks));
}

static void use_all(struct usb_stick *stick)
{
    const struct usb_stick_facts *facts = usb_stick_facts(stick);
    struct usb_stick_counts counts;
    look(facts->units >= 1 && facts->units <= 16 && facts->class_count <= USB_CLASSES_SAID_MAX);
    int r = run(stick);
    for (int i = 0; i < STEPS_MOST && world.input < world.end && r == 0; i++) {
        use(stick, next() % facts->units);
        if (i % 4 == 3)
            r = run(stick);
    }
    if (r == 0)
        run(stick);
    give_back();
    usb_stick_counts(stick, &counts);
    look(counts.failed <= counts.commands);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct model_transport_options transport = {.ends = ends, .time_goes_on = time_goes_on};
    struct usb_stick *stick;
    struct error err = ERROR_INIT;
    world = (struct world){.input = data, .end = data + size, .now = 1000};
    struct stick *model = make_stick();
    if (usb_stick_open(model_transport_create(model, &transport), NULL, changed, NULL, &stick,
                       &err) == 0) {
        use_all(stick);
        usb_stick_close(stick);
    } else {
        look(err.code < 0 && error_message(&err)[0]);
    }
    look(!has_open());
    error_finish(&err);
    stick_destroy(model);
    return 0;
}
