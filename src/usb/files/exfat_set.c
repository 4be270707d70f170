#include "exfat_set.h"

#include <errno.h>
#include <string.h>

#include <block/bytes.h>

enum {
    /* Tables 24, 33: bytes of a file's entry and of its stream extension. */
    COUNT = 1,
    SUM = 2,
    ATTRIBUTES = 4,
    CREATED = 8,
    MODIFIED = 12,
    ACCESSED = 16,
    CREATED_HUNDREDTHS = 20,
    MODIFIED_HUNDREDTHS = 21,
    CREATED_OFFSET = 22,
    MODIFIED_OFFSET = 23,
    ACCESSED_OFFSET = 24,
    STREAM_FLAGS = 1,
    STREAM_NAME_LENGTH = 3,
    STREAM_HASH = 4,
    STREAM_VALID = 8,
    STREAM_FIRST = 20,
    STREAM_SIZE = 24,
    NAME_UNITS = 2,

    ALLOCATION_POSSIBLE = 1 << 0,
    NO_FAT_CHAIN = 1 << 1,
};

/* Each byte's addition waits for the rotation of all before it: an instruction each, and no more
 * than one byte at once. */
static uint16_t add_to_sum(uint16_t sum, const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        sum = (uint16_t)((uint16_t)(sum << 15 | sum >> 1) + bytes[i]);
    return sum;
}

uint16_t exfat_set_sum(const uint8_t *entries, unsigned count)
{
    size_t behind = SUM + sizeof(uint16_t);
    uint16_t sum = add_to_sum(0, entries, SUM);
    return add_to_sum(sum, entries + behind, (size_t)count * EXFAT_ENTRY - behind);
}

uint16_t exfat_name_hash(const struct exfat_upcase *upcase, const uint16_t *name, unsigned length)
{
    uint16_t hash = 0;
    for (unsigned i = 0; i < length; i++) {
        uint16_t unit = upcase->units[name[i]];
        hash = (uint16_t)((uint16_t)(hash << 15 | hash >> 1) + (unit & 0xFF));
        hash = (uint16_t)((uint16_t)(hash << 15 | hash >> 1) + (unit >> 8));
    }
    return hash;
}

/* 7.7.3: a bit a character of ASCII. */
#define BIT(character) (UINT64_C(1) << (character) % 64)
static const uint64_t forbidden[2] = {
    0xFFFFFFFF | BIT('"') | BIT('*') | BIT('/') | BIT(':') | BIT('<') | BIT('>') | BIT('?'),
    BIT('\\') | BIT('|'),
};

bool exfat_name_is_allowed(const uint16_t *name, unsigned length)
{
    if (length == 0 || length > EXFAT_NAME_UNITS)
        return false;
    for (unsigned i = 0; i < length; i++)
        if (name[i] < 0x80 && forbidden[name[i] / 64] >> name[i] % 64 & 1)
            return false;
    return !(name[0] == '.' && (length == 1 || (length == 2 && name[1] == '.')));
}

unsigned exfat_set_count(const uint8_t *first_entry)
{
    unsigned count = 1 + (unsigned)first_entry[COUNT];
    return first_entry[0] == EXFAT_FILE && count >= EXFAT_SET_LEAST ? count : 0;
}

static int damaged(struct error *err, const char *what)
{
    return error_set(err, -EUCLEAN, "exFAT entry set: %s", what);
}

static struct exfat_time time_at(const uint8_t *entry, size_t stamp, size_t hundredths,
                                 size_t offset)
{
    return (struct exfat_time){
        .stamp = get_le32(entry + stamp),
        .hundredths = hundredths ? entry[hundredths] : 0,
        .offset = entry[offset],
    };
}

static void parse_file(const uint8_t *entry, struct exfat_set *set)
{
    set->attributes = get_le16(entry + ATTRIBUTES);
    set->created = time_at(entry, CREATED, CREATED_HUNDREDTHS, CREATED_OFFSET);
    set->modified = time_at(entry, MODIFIED, MODIFIED_HUNDREDTHS, MODIFIED_OFFSET);
    set->accessed = time_at(entry, ACCESSED, 0, ACCESSED_OFFSET);
}

/* 7.6 and 6.3.4: what the parts say fits together. */
static int parse_stream(const uint8_t *entry, struct exfat_set *set, struct error *err)
{
    set->contiguous = entry[STREAM_FLAGS] & NO_FAT_CHAIN;
    set->size = get_le64(entry + STREAM_SIZE);
    set->valid = get_le64(entry + STREAM_VALID);
    set->first = get_le32(entry + STREAM_FIRST);
    set->hash = get_le16(entry + STREAM_HASH);
    set->name_length = entry[STREAM_NAME_LENGTH];
    bool folder = set->attributes & EXFAT_FOLDER;
    if (!(entry[STREAM_FLAGS] & ALLOCATION_POSSIBLE))
        return damaged(err, "a stream without an allocation");
    if (set->valid > set->size || (folder && set->valid != set->size))
        return damaged(err, "more bytes are valid than there are");
    if ((set->first == 0) != (set->size == 0))
        return damaged(err, "a size without clusters, or clusters without a size");
    return set->name_length == 0 ? damaged(err, "no name") : 0;
}

int exfat_set_parse(const uint8_t *entries, unsigned count, struct exfat_set *ret_set,
                    struct error *err)
{
    struct exfat_set *set = ret_set;
    set->entries = count;
    if (count < EXFAT_SET_LEAST || exfat_set_count(entries) != count)
        return damaged(err, "too few entries");
    if (exfat_set_sum(entries, count) != get_le16(entries + SUM))
        return damaged(err, "the checksum is wrong");
    if (entries[EXFAT_ENTRY] != EXFAT_STREAM)
        return damaged(err, "no stream extension");
    parse_file(entries, set);
    int r = parse_stream(entries + EXFAT_ENTRY, set, err);
    if (r != 0)
        return r;
    if (exfat_set_size(set->name_length) > count)
        return damaged(err, "the name is longer than its entries");
    for (unsigned i = 0; i < set->name_length; i++) {
        const uint8_t *entry = entries + (size_t)(2 + i / EXFAT_UNITS_OF_ENTRY) * EXFAT_ENTRY;
        if (entry[0] != EXFAT_NAME)
            return damaged(err, "a part of the name is missing");
        set->name[i] = get_le16(entry + NAME_UNITS + (size_t)(i % EXFAT_UNITS_OF_ENTRY) * 2);
    }
    return exfat_name_is_allowed(set->name, set->name_length) ? 0
                                                              : damaged(err, "no possible name");
}

static void put_time(uint8_t *entry, struct exfat_time time, size_t stamp, size_t hundredths,
                     size_t offset)
{
    put_le32(entry + stamp, time.stamp);
    if (hundredths)
        entry[hundredths] = time.hundredths;
    entry[offset] = time.offset;
}

void exfat_set_update(const struct exfat_set *set, uint8_t *entries, unsigned count)
{
    uint8_t *stream = entries + EXFAT_ENTRY;
    put_le16(entries + ATTRIBUTES, set->attributes);
    put_time(entries, set->created, CREATED, CREATED_HUNDREDTHS, CREATED_OFFSET);
    put_time(entries, set->modified, MODIFIED, MODIFIED_HUNDREDTHS, MODIFIED_OFFSET);
    put_time(entries, set->accessed, ACCESSED, 0, ACCESSED_OFFSET);
    stream[STREAM_FLAGS] =
        (uint8_t)(ALLOCATION_POSSIBLE | (set->contiguous && set->first ? NO_FAT_CHAIN : 0));
    put_le64(stream + STREAM_VALID, set->valid);
    put_le32(stream + STREAM_FIRST, set->first);
    put_le64(stream + STREAM_SIZE, set->size);
    put_le16(entries + SUM, exfat_set_sum(entries, count));
}

void exfat_set_make(const struct exfat_set *set, const struct exfat_upcase *upcase,
                    uint8_t entries[EXFAT_SET_MOST * EXFAT_ENTRY])
{
    unsigned count = exfat_set_size(set->name_length);
    uint8_t *stream = entries + EXFAT_ENTRY;
    memset(entries, 0, EXFAT_SET_MOST * EXFAT_ENTRY);
    entries[0] = EXFAT_FILE;
    entries[COUNT] = (uint8_t)(count - 1);
    stream[0] = EXFAT_STREAM;
    stream[STREAM_NAME_LENGTH] = (uint8_t)set->name_length;
    put_le16(stream + STREAM_HASH, exfat_name_hash(upcase, set->name, set->name_length));
    for (unsigned i = 0; i < set->name_length; i++) {
        uint8_t *entry = entries + (size_t)(2 + i / EXFAT_UNITS_OF_ENTRY) * EXFAT_ENTRY;
        entry[0] = EXFAT_NAME;
        put_le16(entry + NAME_UNITS + (size_t)(i % EXFAT_UNITS_OF_ENTRY) * 2, set->name[i]);
    }
    exfat_set_update(set, entries, count);
}
