#include "journal.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include <block/bytes.h>
#include <block/crc32c.h>

uint32_t journal_sum(const uint8_t *data, uint64_t size, size_t sum_at)
{
    static const uint8_t none[4];
    uint32_t sum = crc32c(0, data, sum_at);
    sum = crc32c(sum, none, sizeof(none));
    return crc32c(sum, data + sum_at + 4, size - sum_at - 4);
}

uint64_t journal_record_size(const struct journal *journal, uint32_t count)
{
    uint32_t sector_size = journal->device->sector_size;
    return journal_front(count, sector_size) + 2 * (uint64_t)count * sector_size;
}

/* Half of the journal, so that there can be two. */
uint32_t journal_record_most(const struct journal *journal)
{
    uint32_t sector_size = journal->device->sector_size;
    uint64_t room = (journal->size - HEADERS * sector_size) / 2;
    return (uint32_t)((room - sector_size) / (2 * sector_size + 8));
}

bool journal_has_room(const struct journal *journal, uint32_t count)
{
    return journal_record_size(journal, count) <= journal->size - journal->position;
}

static void make_header(const struct journal *journal, uint8_t *sector)
{
    uint32_t sector_size = journal->device->sector_size;
    memset(sector, 0, sector_size);
    memcpy(sector + HEADER_MAGIC, JOURNAL_HEADER_MAGIC, 8);
    put_le32(sector + HEADER_VERSION, JOURNAL_VERSION);
    put_le32(sector + HEADER_SECTOR_SIZE, sector_size);
    put_le64(sector + HEADER_OFFSET, journal->first * sector_size);
    put_le64(sector + HEADER_JOURNAL_SIZE, journal->size);
    put_le64(sector + HEADER_VOLUME_SIZE, journal->device->sectors * sector_size);
    put_le64(sector + HEADER_SALT, journal->salt);
    put_le64(sector + HEADER_GENERATION, journal->generation);
    put_le64(sector + HEADER_SEQUENCE, journal->sequence);
    put_le64(sector + HEADER_POSITION, journal->position);
    put_le32(sector + HEADER_FLAGS, journal->in_use ? HEADER_IN_USE : 0);
    put_le32(sector + HEADER_SUM, journal_sum(sector, sector_size, HEADER_SUM));
}

/* Over the older one of the two: a write that is cut off leaves the other. */
int journal_write_header(struct journal *journal, struct error *err)
{
    uint32_t sector_size = journal->device->sector_size;
    uint8_t *sector = block_buffer_alloc(journal->device, sector_size);
    journal->generation++;
    make_header(journal, sector);
    int r = block_write(journal->device, journal->first + journal->generation % HEADERS, 1, sector,
                        err);
    block_buffer_free(journal->device, sector, sector_size);
    if (r == 0)
        journal->header_due = false;
    return r;
}

/* With another salt: a record that a device kept against its word is none of the new ones. */
void journal_restart(struct journal *journal)
{
    journal->salt++;
    journal->position = HEADERS * journal->device->sector_size;
    journal->header_due = true;
}

int journal_make(struct journal *journal, struct block_device *device, uint64_t first,
                 uint64_t size, bool in_use, struct error *err)
{
    *journal = (struct journal){
        .device = device,
        .first = first,
        .size = size,
        .sequence = 1,
        .in_use = in_use,
    };
    if (getrandom(&journal->salt, sizeof(journal->salt), 0) != sizeof(journal->salt))
        return error_errno(err, errno, "random bytes for the journal");
    journal_restart(journal);
    for (int i = 0; i < HEADERS; i++) {
        int r = journal_write_header(journal, err);
        if (r != 0)
            return r;
    }
    return 0;
}

void journal_record_start(const struct journal *journal, uint32_t count,
                          struct journal_record *ret_record)
{
    uint32_t sector_size = journal->device->sector_size;
    uint64_t front = journal_front(count, sector_size);
    uint64_t size = journal_record_size(journal, count);
    uint8_t *data = block_buffer_alloc(journal->device, size);
    memset(data, 0, front);
    *ret_record = (struct journal_record){
        .data = data,
        .size = size,
        .count = count,
        .before = data + front,
        .after = data + front + (uint64_t)count * sector_size,
    };
}

void journal_record_target(struct journal_record *record, uint32_t i, uint64_t sector)
{
    put_le64(record->data + RECORD_TARGETS + (size_t)i * 8, sector);
}

void journal_record_finish(const struct journal *journal, struct journal_record *record)
{
    uint8_t *data = record->data;
    memcpy(data + RECORD_MAGIC, JOURNAL_RECORD_MAGIC, 8);
    put_le64(data + RECORD_SALT, journal->salt);
    put_le64(data + RECORD_SEQUENCE, journal->sequence);
    put_le64(data + RECORD_SIZE, record->size);
    put_le32(data + RECORD_COUNT, record->count | (record->in_use ? RECORD_IN_USE : 0));
    put_le32(data + RECORD_SUM, journal_sum(data, record->size, RECORD_SUM));
}

/* The header goes with the record: when only one of them arrives, the record does not count, which
 * nobody was told that it does. */
int journal_append(struct journal *journal, const struct journal_record *record, struct error *err)
{
    uint32_t sector_size = journal->device->sector_size;
    int r = journal->header_due ? journal_write_header(journal, err) : 0;
    if (r == 0)
        r = block_write(journal->device, journal->first + journal->position / sector_size,
                        (uint32_t)(record->size / sector_size), record->data, err);
    if (r != 0)
        return r;
    journal->position += record->size;
    journal->sequence++;
    journal->in_use = record->in_use;
    return 0;
}
