#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../src/usb/device/wire.h"
#include "stick_internal.h"

static void fail(struct stick *stick, struct unit *unit, uint8_t key, uint8_t code,
                 uint8_t qualifier)
{
    unit->key = key;
    unit->code = code;
    unit->qualifier = qualifier;
    stick->status = 1;
    stick->answer_size = stick->out_size = 0;
}

static void answer(struct stick *stick, uint32_t size, uint32_t allocated)
{
    stick->answer_size = size < allocated ? size : allocated;
}

static uint64_t sectors_of(const struct stick *stick)
{
    return stick->options.pretended ? stick->options.pretended : stick->options.sectors;
}

static void inquiry_page(struct stick *stick, struct unit *unit, const uint8_t *cdb)
{
    uint8_t *at = stick->answer;
    uint32_t size = 0;
    memset(at, 0, 64);
    at[1] = cdb[2];
    switch (cdb[2]) {
    case 0x00:
        memcpy(at + 4, (uint8_t[]){0x00, 0x80, 0x83, 0xB0, 0xB2}, size = 5);
        break;
    case 0x80:
        memcpy(at + 4, "UNIT-0001", size = 9);
        break;
    case 0x83: /* a name by T10 vendor, in ASCII */
        memcpy(at + 4, (uint8_t[]){2, 1, 0, 8}, 4);
        memcpy(at + 8, "CLOCHE-1", 8);
        size = 12;
        break;
    case 0xB0:
        size = 0x3C;
        put_be32(at + 8, 2048); /* longest transfer, in sectors */
        if (stick->options.provisioning <= STICK_UNMAP) {
            put_be32(at + 20, stick->options.unmap_most ? stick->options.unmap_most : 1U << 16);
            put_be32(at + 24, 1); /* descriptors of it */
        }
        put_be64(at + 36, stick->options.same_most);
        break;
    case 0xB2:
        size = 4;
        at[5] = (uint8_t[]){0xC0, 0x80, 0x40, 0}[stick->options.provisioning];
        break;
    default:
        fail(stick, unit, 5, 0x24, 0);
        return;
    }
    put_be16(at + 2, (uint16_t)size);
    answer(stick, size + 4, get_be16(cdb + 3));
}

static void inquiry(struct stick *stick, struct unit *unit, const uint8_t *cdb)
{
    uint8_t *at = stick->answer;
    if (cdb[1] & 1) {
        inquiry_page(stick, unit, cdb);
        return;
    }
    memset(at, 0, 36);
    at[1] = stick->options.fixed ? 0 : 0x80;
    at[2] = (uint8_t)stick->options.version;
    at[3] = 2;
    at[4] = 31;
    memcpy(at + 8, "Cloche  Model stick     1.0 ", 28);
    if (stick->options.inquiry)
        memcpy(at + 8, stick->options.inquiry, STICK_INQUIRY_SIZE);
    if (stick_has(stick, STICK_INQUIRY_JUNK))
        for (int i = 1; i < 36; i++)
            at[i] = (uint8_t)rand();
    answer(stick, 36, get_be16(cdb + 3));
}

static void sense(struct stick *stick, struct unit *unit, const uint8_t *cdb)
{
    uint8_t *at = stick->answer;
    memset(at, 0, 32);
    if (stick->faults[STICK_SENSE_JUNK].active && unit->key == 0x0F) {
        for (int i = 0; i < 18; i++)
            at[i] = (uint8_t)rand();
        answer(stick, 18, cdb[4]);
    } else if (stick->faults[STICK_SENSE_STALLS].active && unit->key == 0x0F) {
        stick->status = 1;
    } else if (stick->faults[STICK_DESCRIPTOR_SENSE].active) {
        memcpy(at, (uint8_t[]){0x72, unit->key, unit->code, unit->qualifier, 0, 0, 0, 12}, 8);
        memcpy(at + 8, (uint8_t[]){0, 10, 0x80, 0}, 4);
        put_be64(at + 12, 7);
        answer(stick, 20, cdb[4]);
    } else {
        at[0] = unit->deferred ? 0x71 : 0x70;
        at[2] = unit->key;
        at[7] = 10;
        at[12] = unit->code;
        at[13] = unit->qualifier;
        answer(stick, 18, cdb[4]);
    }
    unit->key = unit->code = unit->qualifier = 0;
    unit->deferred = false;
}

static void capacity(struct stick *stick, const uint8_t *cdb, bool sixteen)
{
    uint8_t *at = stick->answer;
    uint64_t last = sectors_of(stick) - 1;
    uint32_t size = stick->options.sector_size;
    memset(at, 0, 32);
    if (stick_has(stick, STICK_CAPACITY_NONE))
        size = 0;
    if (stick_has(stick, STICK_CAPACITY_HUGE))
        last = UINT64_MAX;
    if (stick_has(stick, STICK_CAPACITY_ODD))
        size = 520;
    if (sixteen) {
        put_be64(at, last);
        put_be32(at + 8, size);
        at[14] = stick->options.provisioning == STICK_UNPROVISIONED ? 0 : 0x80; /* LBPME */
        answer(stick, 32, get_be32(cdb + 10));
    } else {
        put_be32(at, last > UINT32_MAX ? UINT32_MAX : (uint32_t)last);
        put_be32(at + 4, size);
        answer(stick, stick_has(stick, STICK_CAPACITY_SHORT) ? 5 : 8, 8);
    }
}

static void modes(struct stick *stick, struct unit *unit, const uint8_t *cdb, bool ten)
{
    if (stick_has(stick, STICK_CHANGE_EARLY) && !stick->changed_early) {
        stick->changed_early = true;
        stick->options.sectors /= 2;
        fail(stick, unit, 6, 0x28, 0);
        return;
    }
    uint8_t *at = stick->answer;
    uint8_t protected = stick->options.read_only ? 0x80 : 0;
    uint8_t page = cdb[2] & 0x3F;
    uint32_t header = ten ? 8 : 4, size = header;
    if (stick_has(stick, STICK_NO_MODES) || (page != 8 && page != 0x3F)) {
        fail(stick, unit, 5, 0x24, 0);
        return;
    }
    memset(at, 0, 64);
    memcpy(at + header, (uint8_t[]){8, 0x12, stick->options.uncached ? 0 : 4}, 3);
    size += 20;
    if (ten) {
        put_be16(at, (uint16_t)(size - 2));
        at[3] = protected;
    } else {
        at[0] = (uint8_t)(size - 1);
        at[2] = protected;
    }
    answer(stick, size, ten ? get_be16(cdb + 7) : cdb[4]);
}

static bool range(struct stick *stick, struct unit *unit, uint64_t sector, uint64_t count)
{
    if (sector <= sectors_of(stick) && count <= sectors_of(stick) - sector)
        return true;
    fail(stick, unit, 5, 0x21, 0);
    return false;
}

static void medium_fault(struct stick *stick, struct unit *unit)
{
    if (stick_has(stick, STICK_MEDIUM_ERROR) || stick_has(stick, STICK_DESCRIPTOR_SENSE))
        fail(stick, unit, 3, 0x11, 0);
    if (stick_has(stick, STICK_DEFERRED)) {
        unit->deferred = true;
        fail(stick, unit, 3, 0x0C, 0);
    }
    if (stick_has(stick, STICK_BUS_RESET))
        fail(stick, unit, 6, 0x29, 0);
    if (stick_has(stick, STICK_MEDIUM_CHANGE)) {
        stick->changed = true;
        fail(stick, unit, 6, 0x28, 0);
    }
    if (stick_has(stick, STICK_CAPACITY_CHANGED)) {
        stick->options.sectors /= 2;
        fail(stick, unit, 6, 0x2A, 9);
    }
    if (stick_has(stick, STICK_MEDIUM_GONE)) {
        unit->absent = true;
        fail(stick, unit, 2, 0x3A, 0);
    }
    if (stick_has(stick, STICK_SENSE_JUNK) || stick_has(stick, STICK_SENSE_STALLS))
        fail(stick, unit, 0x0F, 0, 0);
}

static void move(struct stick *stick, struct unit *unit, bool write, uint64_t sector,
                 uint64_t count)
{
    uint32_t size = (uint32_t)count * stick->options.sector_size;
    stick->counts.last_sector = sector;
    if (!range(stick, unit, sector, count))
        return;
    if (write && (stick->options.read_only || stick_has(stick, STICK_WRITE_PROTECT))) {
        fail(stick, unit, 7, 0x27, 0);
        return;
    }
    if (stick->options.slow_ms)
        usleep(stick->options.slow_ms * 1000);
    medium_fault(stick, unit);
    if (stick->status != 0)
        return;
    if (write) {
        stick->out_size = size;
        stick->out_data = stick_write_to(stick, sector, count);
    } else {
        stick->answer_size = size;
        stick->answer_data = stick_read_from(stick, sector, count);
    }
    if (stick_has(stick, STICK_ABORTED)) {
        stick->status = 1;
        unit->key = 0x0B;
        unit->qualifier = 6;
    }
}

static bool ready(struct stick *stick, struct unit *unit)
{
    if (unit->swapped) {
        unit->swapped = false;
        fail(stick, unit, 6, 0x28, 0);
    } else if (unit->attention) {
        unit->attention = false;
        fail(stick, unit, 6, 0x29, 0);
    } else if (unit->absent) {
        fail(stick, unit, 2, 0x3A, 0);
    } else if (stick_has(stick, STICK_NEVER_READY) || unit->not_ready > 0) {
        unit->not_ready -= unit->not_ready > 0;
        fail(stick, unit, 2, 4, 1);
    } else if (stick_has(stick, STICK_NEEDS_START) && !unit->started) {
        fail(stick, unit, 2, 4, 2);
    } else {
        return true;
    }
    return false;
}

static void start_stop(struct stick *stick, struct unit *unit, const uint8_t *cdb)
{
    if (cdb[4] & 1) {
        stick->counts.starts++;
        unit->started = true;
    } else {
        stick->counts.stops++;
        unit->absent |= (cdb[4] & 2) != 0;
    }
}

static bool knows_discard(const struct stick *stick, enum stick_provisioning other)
{
    return stick->options.provisioning != other &&
           stick->options.provisioning != STICK_UNPROVISIONED &&
           !stick_has(stick, STICK_DISCARD_REFUSED);
}

static void medium_command(struct stick *stick, struct unit *unit, const uint8_t *cdb)
{
    switch (cdb[0]) {
    case 0x00:
        if (stick_has(stick, STICK_READY_REFUSED) && !unit->refused) {
            unit->refused = true;
            fail(stick, unit, 5, 0x25, 0);
        }
        break;
    case 0x1A:
        modes(stick, unit, cdb, false);
        break;
    case 0x5A:
        modes(stick, unit, cdb, true);
        break;
    case 0x25:
        capacity(stick, cdb, false);
        break;
    case 0x9E:
        capacity(stick, cdb, true);
        break;
    case 0x28:
    case 0x2A:
        move(stick, unit, cdb[0] == 0x2A, get_be32(cdb + 2), get_be16(cdb + 7));
        break;
    case 0x88:
    case 0x8A:
        move(stick, unit, cdb[0] == 0x8A, get_be64(cdb + 2), get_be32(cdb + 10));
        break;
    case 0x35:
    case 0x91:
        stick->counts.flushes++;
        stick_keep(stick);
        if (stick_has(stick, STICK_NO_SYNC))
            fail(stick, unit, 5, 0x20, 0);
        else if (stick_has(stick, STICK_SYNC_LOST) && stick->counts.flushes == 1)
            fail(stick, unit, 0x0B, 0, 6);
        break;
    case 0x42: /* UNMAP: its data say what */
        if (!knows_discard(stick, STICK_WS16)) {
            fail(stick, unit, 5, 0x20, 0);
            break;
        }
        stick->out_size = get_be16(cdb + 7);
        stick->out_data = stick->answer;
        if (stick->out_size > ANSWER_MAX)
            fail(stick, unit, 5, 0x24, 0);
        break;
    case 0x93: /* WRITE SAME(16) */
        if (!knows_discard(stick, STICK_UNMAP))
            fail(stick, unit, 5, 0x20, 0);
        else if (range(stick, unit, get_be64(cdb + 2), get_be32(cdb + 10))) {
            stick->out_size = stick->options.sector_size;
            stick->out_data = stick->answer;
        }
        break;
    default:
        fail(stick, unit, 5, 0x20, 0);
    }
}

static void report_luns(struct stick *stick, const uint8_t *cdb)
{
    uint32_t size = 8;
    memset(stick->answer, 0, 8 + 8 * UNITS_MAX);
    for (unsigned i = 0; i < stick->options.units; i++) {
        if (stick->options.absent & 1U << i)
            continue;
        stick->answer[size + 1] = (uint8_t)i;
        size += 8;
    }
    put_be32(stick->answer, size - 8);
    answer(stick, size, get_be32(cdb + 6));
}

void stick_scsi(struct stick *stick, struct unit *unit, const uint8_t *cdb)
{
    if (stick->options.late_ms)
        usleep(stick->options.late_ms * 1000);
    if (stick_change_medium(stick))
        for (unsigned i = 0; i < stick->options.units; i++)
            stick->units[i].swapped = true;
    switch (cdb[0]) {
    case 0x12:
        if (stick_has(stick, STICK_INQUIRY_STALLS))
            fail(stick, unit, 5, 0x20, 0);
        else
            inquiry(stick, unit, cdb);
        break;
    case 0x03:
        sense(stick, unit, cdb);
        break;
    case 0xA0: /* REPORT LUNS */
        report_luns(stick, cdb);
        break;
    case 0x1B:
        start_stop(stick, unit, cdb);
        break;
    case 0x1E:
        stick->counts.allows += (cdb[4] & 1) == 0;
        stick->counts.prevents += cdb[4] & 1;
        stick->mute |= stick_has(stick, STICK_PREVENT_HANGS);
        if (stick_has(stick, STICK_NO_PREVENT))
            fail(stick, unit, 5, 0x20, 0);
        break;
    default:
        if (ready(stick, unit))
            medium_command(stick, unit, cdb);
    }
}

static void discard(struct stick *stick, struct unit *unit, const uint8_t *cdb, uint64_t sector,
                    uint64_t count)
{
    const struct stick_options *options = &stick->options;
    uint32_t most = cdb[0] == 0x93        ? options->same_most
                    : options->unmap_most ? options->unmap_most
                                          : 1U << 16;
    if (!range(stick, unit, sector, count))
        return;
    if (most != 0 && count > most) {
        fail(stick, unit, 5, 0x24, 0);
        return;
    }
    if (stick->counts.discards < STICK_DISCARDS_KEPT) {
        struct stick_discard *kept = &stick->discards[stick->counts.discards];
        memcpy(kept->cdb, cdb, sizeof(kept->cdb));
        memcpy(kept->list, stick->answer, sizeof(kept->list));
    }
    stick->counts.discards++;
    memset(stick_place(stick, sector, count), 0, count * stick->options.sector_size);
}

void stick_scsi_out(struct stick *stick, struct unit *unit, const uint8_t *cdb)
{
    if (cdb[0] == 0x42 && stick->moved >= 24)
        discard(stick, unit, cdb, get_be64(stick->answer + 8), get_be32(stick->answer + 16));
    if (cdb[0] == 0x93)
        discard(stick, unit, cdb, get_be64(cdb + 2), get_be32(cdb + 10));
}

const struct stick_discard *stick_discards(const struct stick *stick)
{
    return stick->discards;
}
