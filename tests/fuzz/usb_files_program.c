#include "usb_files_program.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SLOTS = 4,
    OPERATIONS_MOST = 200,
    STEP = 777,
    CONTENT_MOST = 24 << 10,
    MANY_MOST = 60,
};

struct run {
    struct volume *volume;
    const struct volume_ops *ops;
    int64_t (*met)(int64_t r);
    struct node *slots[SLOTS]; /* held; NULL: the root folder */
};

static const char *const names[] = {
    "a",
    "B.TXT",
    "file",
    "folder",
    "a name that is longer than another one, and longer still.text",
    "gr\u00f6\u00dfer \u65e5\u672c\u8a9e \U0001F600",
    "made by us",
    "CLOCHE.DEL",
    "cloche.jnl",
    "PLAIN.TXT",
    "what? *",
    "\xff\xfe no text \xc3",
    "",
    "..",
    "name that is shortened 1",
    "name that is shortened 2",
};
enum { NAMES = sizeof(names) / sizeof(names[0]) };

static const char *name_of(uint8_t number)
{
    static char longest[300];
    if (number % (NAMES + 1) < NAMES)
        return names[number % (NAMES + 1)];
    memset(longest, 'n', sizeof(longest) - 1);
    longest[number < 128 ? 255 : 256] = '\0';
    return longest;
}

static struct node *slot(struct run *run, uint8_t number)
{
    struct node *node = run->slots[number % SLOTS];
    return node ? node : run->ops->root(run->volume);
}

static void take(struct run *run, uint8_t number, struct node *node)
{
    struct node **place = &run->slots[number % SLOTS];
    if (*place)
        run->ops->node_drop(run->volume, *place, 1);
    *place = node;
}

static bool is_file(struct run *run, uint8_t number)
{
    struct node_facts facts;
    return run->slots[number % SLOTS] &&
           run->ops->node_facts(run->volume, slot(run, number), &facts, NULL) == 0 &&
           facts.type == NODE_FILE;
}

static int64_t create(struct run *run, const uint8_t *with)
{
    struct node *node = NULL;
    int r = run->ops->create(run->volume, slot(run, with[1]), name_of(with[2]),
                             with[3] & 1 ? NODE_FOLDER : NODE_FILE, &node, NULL);
    if (r == 0)
        take(run, with[3] >> 1, node);
    return r;
}

/* Many of them: a folder grows. */
static int64_t create_many(struct run *run, const uint8_t *with)
{
    int64_t r = 0;
    for (unsigned i = 0; r == 0 && i < with[2] % MANY_MOST; i++) {
        char name[80];
        struct node *node = NULL;
        snprintf(name, sizeof(name), "%s %u", with[3] & 1 ? "one of many, whose name is long" : "m",
                 i);
        r = run->ops->create(run->volume, slot(run, with[1]), name, NODE_FILE, &node, NULL);
        if (r == 0 && with[3] & 2) /* pieces that are parted */
            volume_write(run->volume, node, 0, name, sizeof(name), NULL);
        if (r == 0)
            run->ops->node_drop(run->volume, node, 1);
    }
    return r;
}

static int64_t look_up(struct run *run, const uint8_t *with)
{
    char spelt[VOLUME_NAME_MAX + 1];
    struct node *node = NULL;
    int r = run->ops->lookup(run->volume, slot(run, with[1]), name_of(with[2]), &node, NULL);
    run->ops->spelling(run->volume, slot(run, with[1]), name_of(with[2]), spelt, NULL);
    if (r == 0)
        take(run, with[3], node);
    return r;
}

static int64_t write_some(struct run *run, const uint8_t *with)
{
    static uint8_t bytes[CONTENT_MOST];
    if (!is_file(run, with[1]))
        return 0;
    return volume_write(run->volume, slot(run, with[1]), (uint64_t)with[2] * STEP, bytes,
                        (size_t)with[3] * with[3] % CONTENT_MOST, NULL);
}

static int64_t read_some(struct run *run, const uint8_t *with)
{
    static uint8_t bytes[CONTENT_MOST];
    if (!is_file(run, with[1]))
        return 0;
    return volume_read(run->volume, slot(run, with[1]), (uint64_t)with[2] * STEP, bytes,
                       sizeof(bytes), NULL);
}

/* Announced, and then it does not come. */
static int64_t reserve(struct run *run, const uint8_t *with)
{
    if (!is_file(run, with[1]))
        return 0;
    struct node *file = slot(run, with[1]);
    uint64_t at = (uint64_t)with[2] * STEP;
    int r = run->ops->reserve(run->volume, file, at, (uint64_t)with[3] * STEP, NULL);
    if (r == 0 && with[3] & 1)
        r = run->ops->wrote(run->volume, file, at, with[3], false, NULL);
    run->ops->unreserve(run->volume, file);
    return r;
}

static int64_t resize(struct run *run, const uint8_t *with)
{
    struct node_facts facts = {.size = (uint64_t)with[2] * STEP};
    if (with[3] == 255)
        facts.size = UINT64_MAX - with[2];
    return run->ops->node_set(run->volume, slot(run, with[1]), NODE_SIZE, &facts, NULL);
}

static int64_t set_facts(struct run *run, const uint8_t *with)
{
    struct node_facts facts = {
        .read_only = with[3] & 1,
        .hidden = with[3] & 2,
        .system = with[3] & 4,
        .archive = with[3] & 8,
    };
    return run->ops->node_set(run->volume, slot(run, with[1]), with[2] & 31u & ~(unsigned)NODE_SIZE,
                              &facts, NULL);
}

static int64_t rename_it(struct run *run, const uint8_t *with)
{
    return run->ops->rename(run->volume, slot(run, with[1]), name_of(with[2]),
                            slot(run, with[1] >> 2), name_of(with[3]), with[1] & 0x80, NULL);
}

static int64_t remove_it(struct run *run, const uint8_t *with)
{
    return run->ops->remove(run->volume, slot(run, with[1]), name_of(with[2]),
                            with[3] & 1 ? NODE_FOLDER : NODE_FILE, NULL);
}

static int64_t set_label(struct run *run, const uint8_t *with)
{
    return run->ops->set_label(run->volume, with[1] & 1 ? "" : name_of(with[2]), NULL);
}

/* Files until there is no room. */
static int64_t fill(struct run *run, const uint8_t *with)
{
    struct volume_facts facts;
    if (!is_file(run, with[1]) || run->ops->facts(run->volume, &facts, NULL) != 0)
        return 0;
    struct node_facts size = {.size = (facts.clusters_free + with[2] % 4) * facts.cluster_size};
    return run->ops->node_set(run->volume, slot(run, with[1]), NODE_SIZE, &size, NULL);
}

static int64_t settle(struct run *run, const uint8_t *with)
{
    switch (with[1] % 4) {
    case 0:
        return medium_sync(run->volume->medium, NULL);
    case 1:
        return medium_settle(run->volume->medium, NULL);
    case 2:
        return run->ops->rest(run->volume, NULL);
    default:
        take(run, with[2], NULL);
        return 0;
    }
}

static int64_t hold(struct run *run, const uint8_t *with)
{
    struct node *node = run->slots[with[1] % SLOTS];
    if (node) {
        run->ops->node_hold(run->volume, node);
        take(run, with[2], node);
    }
    return 0;
}

static int64_t identify(struct run *run, const uint8_t *with)
{
    struct volume_facts facts;
    struct node_facts of_node;
    run->ops->identity(run->volume, &facts, NULL);
    return run->ops->node_facts(run->volume, slot(run, with[1]), &of_node, NULL);
}

static int64_t (*const operations[])(struct run *run, const uint8_t *with) = {
    create,    create_many, look_up,   write_some, read_some, reserve, resize,   set_facts,
    rename_it, remove_it,   set_label, fill,       settle,    hold,    identify,
};
enum { OPERATIONS = sizeof(operations) / sizeof(operations[0]) };

void run_program(struct volume *volume, const uint8_t *program, size_t size,
                 int64_t (*met)(int64_t r))
{
    struct run run = {.volume = volume, .ops = volume->ops, .met = met};
    unsigned count = 0;
    for (; size >= OPERATION_BYTES && count < OPERATIONS_MOST; count++) {
        met(operations[program[0] % OPERATIONS](&run, program));
        program += OPERATION_BYTES;
        size -= OPERATION_BYTES;
    }
    for (uint8_t i = 0; i < SLOTS; i++)
        take(&run, i, NULL);
}
