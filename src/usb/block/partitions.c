#include <block/partitions.h>

#include <errno.h>
#include <string.h>
#include <zlib.h>

#include <block/bytes.h>

/* A disk while its tables are read. */
struct reading {
    struct block_device *device;
    struct partitions *found;
    uint8_t *sector; /* one, of the device's memory */
};

static void add(struct reading *reading, const struct partition *partition)
{
    struct partitions *found = reading->found;
    if (partition->count == 0 ||
        !block_within(reading->device, partition->first, partition->count) ||
        partition->first == 0 || found->count == PARTITIONS_MAX) {
        found->skipped++;
        return;
    }
    found->partitions[found->count++] = *partition;
}

/* Whether an error is of these sectors, and not of all there are. */
static bool is_of_the_place(int r)
{
    return r != 0 && r != -ENODEV && r != -ENOMEDIUM;
}

static int read_sector(struct reading *reading, uint64_t sector, struct error *err)
{
    return block_read(reading->device, sector, 1, reading->sector, err);
}

/* The master boot record: four entries of 16 bytes at 446, 0x55 0xAA at 510. */

enum { ENTRIES_AT = 446, ENTRIES = 4, ENTRY_SIZE = 16, PROTECTIVE = 0xEE };

struct mbr_entry {
    uint8_t status, type;
    uint32_t first, count;
};

static struct mbr_entry mbr_entry(const uint8_t *sector, int i)
{
    const uint8_t *entry = sector + ENTRIES_AT + i * ENTRY_SIZE;
    return (struct mbr_entry){entry[0], entry[4], get_le32(entry + 8), get_le32(entry + 12)};
}

static bool is_extended(uint8_t type)
{
    return type == 0x05 || type == 0x0F || type == 0x85;
}

/* A table rather than a volume's first sector: boot code ends where the entries begin. */
static bool is_table(const uint8_t *sector)
{
    bool any = false;
    if (sector[510] != 0x55 || sector[511] != 0xAA)
        return false;
    for (int i = 0; i < ENTRIES; i++) {
        struct mbr_entry entry = mbr_entry(sector, i);
        if (entry.status & 0x7F)
            return false;
        any |= entry.type != 0 && entry.count != 0;
    }
    return any;
}

static bool is_among(uint64_t table, const uint64_t *tables, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (tables[i] == table)
            return true;
    return false;
}

/* Logical partitions: a chain of tables of two entries, the partition (from this table on) and the
 * next table (from the extended partition's first sector on). */
static int read_logical(struct reading *reading, uint32_t extended, struct error *err)
{
    uint64_t table = extended, tables[PARTITIONS_MAX];
    unsigned number = 5;
    for (unsigned i = 0; i < PARTITIONS_MAX; i++) {
        if (!block_within(reading->device, table, 1) || is_among(table, tables, i)) {
            reading->found->skipped++;
            return 0;
        }
        tables[i] = table;
        int r = read_sector(reading, table, NULL);
        if (is_of_the_place(r)) { /* those that were found are there */
            reading->found->skipped++;
            return 0;
        }
        if (r != 0)
            return error_errno(err, -r, "read the table at %llu", (unsigned long long)table);
        if (!is_table(reading->sector))
            return 0;
        uint64_t next = 0;
        for (int j = 0; j < ENTRIES; j++) {
            struct mbr_entry entry = mbr_entry(reading->sector, j);
            if (entry.type == 0 || entry.count == 0)
                continue;
            if (is_extended(entry.type))
                next = next ? next : (uint64_t)extended + entry.first;
            else
                add(reading, &(struct partition){.number = number++,
                                                 .first = table + entry.first,
                                                 .count = entry.count,
                                                 .mbr_type = entry.type});
        }
        if (next == 0)
            return 0;
        table = next;
    }
    reading->found->skipped++;
    return 0;
}

/* The sector is read. */
static int read_mbr(struct reading *reading, struct error *err)
{
    struct mbr_entry entries[ENTRIES];
    reading->found->table = PARTITIONS_MBR;
    for (int i = 0; i < ENTRIES; i++) {
        entries[i] = mbr_entry(reading->sector, i);
        if (entries[i].type != 0 && entries[i].count != 0 && !is_extended(entries[i].type))
            add(reading, &(struct partition){.number = (unsigned)i + 1,
                                             .first = entries[i].first,
                                             .count = entries[i].count,
                                             .mbr_type = entries[i].type});
    }
    /* Linux follows one chain only: the first one that leads anywhere. */
    for (int i = 0; i < ENTRIES; i++)
        if (is_extended(entries[i].type) && entries[i].count != 0)
            return read_logical(reading, entries[i].first, err);
    return 0;
}

/* GPT: a header in sector 1 and in the last one, each with a table of its own. */

enum {
    HEADER_SIZE = 92,
    HEADER_SIZE_MAX = 512,
    GPT_ENTRY_MIN = 128,
    GPT_ENTRY_MAX = 4096,
    GPT_ENTRIES_MAX = 1024,
};

struct gpt_header {
    uint64_t entries_at;
    uint32_t entries, entry_size, entries_crc;
};

/* The sector is read. False: it is no header that is whole and says where it is. */
static bool gpt_header(struct reading *reading, uint64_t at, struct gpt_header *ret)
{
    uint8_t *sector = reading->sector;
    if (memcmp(sector, "EFI PART", 8) != 0)
        return false;
    uint32_t size = get_le32(sector + 12), sum = get_le32(sector + 16);
    if (size < HEADER_SIZE || size > HEADER_SIZE_MAX || size > reading->device->sector_size)
        return false;
    put_le32(sector + 16, 0);
    if (crc32(0, sector, size) != sum || get_le64(sector + 24) != at)
        return false;
    *ret = (struct gpt_header){
        .entries_at = get_le64(sector + 72),
        .entries = get_le32(sector + 80),
        .entry_size = get_le32(sector + 84),
        .entries_crc = get_le32(sector + 88),
    };
    return ret->entries >= 1 && ret->entries <= GPT_ENTRIES_MAX &&
           ret->entry_size >= GPT_ENTRY_MIN && ret->entry_size <= GPT_ENTRY_MAX &&
           (ret->entry_size & (ret->entry_size - 1)) == 0;
}

/* What can be shown of a name of UTF-16, which may hold anything. */
static void gpt_name(const uint8_t *units, char name[109])
{
    size_t length = 0;
    for (int i = 0; i < 36; i++) {
        uint16_t unit = get_le16(units + 2 * i);
        if (unit == 0)
            break;
        if (unit < 0x20 || (unit >= 0x7F && unit < 0xA0) || (unit >= 0xD800 && unit < 0xE000))
            unit = '?';
        if (unit < 0x80) {
            name[length++] = (char)unit;
        } else if (unit < 0x800) {
            name[length++] = (char)(0xC0 | unit >> 6);
            name[length++] = (char)(0x80 | (unit & 0x3F));
        } else {
            name[length++] = (char)(0xE0 | unit >> 12);
            name[length++] = (char)(0x80 | (unit >> 6 & 0x3F));
            name[length++] = (char)(0x80 | (unit & 0x3F));
        }
    }
    name[length] = '\0';
}

static void add_gpt_entry(struct reading *reading, unsigned number, const uint8_t *entry)
{
    static const uint8_t unused[16];
    struct partition partition = {.number = number, .first = get_le64(entry + 32)};
    uint64_t last = get_le64(entry + 40);
    if (memcmp(entry, unused, sizeof(unused)) == 0)
        return;
    if (last >= partition.first && last != UINT64_MAX)
        partition.count = last - partition.first + 1;
    memcpy(partition.guid, entry, sizeof(partition.guid));
    gpt_name(entry + 56, partition.name);
    add(reading, &partition);
}

/* 1 when the table whose header is in this sector is whole. */
static int read_gpt(struct reading *reading, uint64_t at, struct error *err)
{
    struct gpt_header header;
    uint32_t sector_size = reading->device->sector_size;
    int r = read_sector(reading, at, err);
    if (r != 0 || !gpt_header(reading, at, &header))
        return r;
    size_t size = (size_t)header.entries * header.entry_size;
    uint32_t sectors = (uint32_t)((size + sector_size - 1) / sector_size);
    if (!block_within(reading->device, header.entries_at, sectors))
        return 0;
    size_t room = (size_t)sectors * sector_size;
    uint8_t *entries = block_buffer_alloc(reading->device, room);
    r = block_read(reading->device, header.entries_at, sectors, entries, err);
    if (r == 0 && crc32(0, entries, (uInt)size) == header.entries_crc) {
        reading->found->table = PARTITIONS_GPT;
        for (unsigned i = 0; i < header.entries; i++)
            add_gpt_entry(reading, i + 1, entries + (size_t)i * header.entry_size);
        r = 1;
    }
    block_buffer_free(reading->device, entries, room);
    return r;
}

/* The second one where the first is broken or cannot be read. 1: one of them is whole. */
static int read_either_gpt(struct reading *reading, struct error *err)
{
    int r = read_gpt(reading, 1, err);
    if (r == 1 || (r < 0 && !is_of_the_place(r)))
        return r;
    _cleanup_error_ struct error why = ERROR_INIT;
    int second = read_gpt(reading, reading->device->sectors - 1, &why);
    reading->found->of_backup = second == 1;
    if (second == 1 && err)
        error_finish(err);
    if (second == 1 || r < 0)
        return second == 1 ? 1 : r;
    return second < 0 ? error_set(err, second, "%s", error_message(&why)) : 0;
}

static bool is_protective(const uint8_t *sector)
{
    for (int i = 0; i < ENTRIES; i++)
        if (mbr_entry(sector, i).type == PROTECTIVE)
            return true;
    return false;
}

static int read_tables(struct reading *reading, bool (*is_volume)(const uint8_t *, size_t),
                       struct error *err)
{
    uint32_t size = reading->device->sector_size;
    int r = read_sector(reading, 0, err);
    if (r != 0 || is_volume(reading->sector, size) || !is_table(reading->sector))
        return r;
    if (!is_protective(reading->sector))
        return read_mbr(reading, err);
    r = reading->device->sectors > 2 ? read_either_gpt(reading, err) : 0;
    /* Neither is whole: a disk whose one partition says only that it has some. */
    return r < 0 ? r : 0;
}

int partitions_read(struct block_device *device, bool (*is_volume)(const uint8_t *, size_t),
                    struct partitions *ret_partitions, struct error *err)
{
    memset(ret_partitions, 0, sizeof(*ret_partitions));
    struct reading reading = {
        .device = device,
        .found = ret_partitions,
        .sector = block_buffer_alloc(device, device->sector_size),
    };
    int r = read_tables(&reading, is_volume, err);
    if (r != 0)
        error_context(err, "partition table");
    block_buffer_free(device, reading.sector, device->sector_size);
    return r;
}
