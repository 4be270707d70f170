#include <errno.h>
#include <string.h>

#include "../../src/usb/device/wire.h"
#include "stick_internal.h"

void stick_bulk_reset(struct stick *stick)
{
    stick->phase = PHASE_CBW;
    stick->wedged = stick->mute = stick->data_command = false;
    stick->csw_stalls = stick->csw_empties = 0;
}

static void put_csw(struct stick *stick, uint32_t residue, uint8_t status)
{
    uint8_t *csw = stick->csw;
    memset(csw, 0, sizeof(stick->csw));
    memcpy(csw, "USBS", 4);
    memcpy(csw + 4, stick->cbw + 4, 4);
    put_le32(csw + 8, residue);
    csw[12] = status;
    stick->csw_size = CSW_SIZE;
    if (stick_has(stick, STICK_WRONG_TAG))
        csw[4] ^= 1;
    if (stick_has(stick, STICK_WRONG_SIGNATURE))
        csw[0] = 'X';
    if (stick_has(stick, STICK_SHORT_CSW))
        stick->csw_size = 7;
    if (stick_has(stick, STICK_LONG_CSW))
        stick->csw_size = 20;
    if (stick_has(stick, STICK_PHASE_ERROR))
        csw[12] = 2;
    if (stick_has(stick, STICK_RESIDUE_LIE))
        put_le32(csw + 8, stick->host_length / 2);
    if (stick_always_has(stick, STICK_RESIDUE_ALWAYS))
        put_le32(csw + 8, stick->host_length);
    if (stick->faults[STICK_INQUIRY_PADDED].active && stick->cbw[15] == 0x12)
        put_le32(csw + 8, 5);
    if (stick_has(stick, STICK_RESIDUE_HUGE))
        put_le32(csw + 8, stick->host_length + 512);
    stick->csw_stalls =
        stick_has(stick, STICK_STALL_CSW_TWICE) ? 2 : stick_has(stick, STICK_STALL_CSW);
    stick->csw_empties = stick_has(stick, STICK_EMPTY_CSW);
    stick->mute |= stick_has(stick, STICK_MUTE_CSW);
    stick->phase = PHASE_CSW;
}

static void end_command(struct stick *stick)
{
    put_csw(stick, stick->host_length - stick->moved, stick->status);
}

/* The device's intentions are as the host's, or as one of the thirteen cases says. */
static void begin_data(struct stick *stick, bool host_in)
{
    uint32_t half = stick->host_length / 2;
    uint32_t size = host_in ? stick->answer_size : stick->out_size;
    bool less = stick_has(stick, STICK_CASE_5) || stick_has(stick, STICK_CASE_11) ||
                stick_has(stick, STICK_SHORT_DATA) || stick_has(stick, STICK_SHORT_SILENT);
    bool none = stick_has(stick, STICK_CASE_4) || stick_has(stick, STICK_CASE_8) ||
                stick_has(stick, STICK_CASE_9) || stick_has(stick, STICK_CASE_10) ||
                stick_has(stick, STICK_STALL_DATA);
    bool wrong_way = stick_has(stick, STICK_CASE_8) || stick_has(stick, STICK_CASE_10) ||
                     (host_in ? stick->out_size : stick->answer_size) > 0;
    if (less && size > half)
        size = half;
    if (none || wrong_way)
        size = 0;
    if (stick_has(stick, STICK_STALL_DATA)) {
        stick->status = 1;
        stick->units[stick->unit].key = 3;
        stick->units[stick->unit].code = 0x11;
    }
    if (size > stick->host_length) {
        size = stick->host_length;
        stick->status = 2;
    }
    if (wrong_way)
        stick->status = 2;
    if (host_in && stick_has(stick, STICK_CSW_FIRST)) {
        end_command(stick);
        return;
    }
    stick->mute |= stick_has(stick, STICK_MUTE_DATA);
    stick->in_data = stick->answer_data;
    stick->in_left = host_in ? size : 0;
    stick->out_left = host_in ? 0 : size;
    stick->out_at = stick->out_data;
    stick->needs_empty = stick_has(stick, STICK_SHORT_DATA) || stick_has(stick, STICK_SHORT_SILENT);
    stick->stalls_after = size < stick->host_length && !stick->needs_empty;
    if (size == 0 && stick->stalls_after) {
        *(host_in ? &stick->in_halted : &stick->out_halted) = true;
        end_command(stick);
        return;
    }
    stick->phase = host_in ? PHASE_DATA_IN : PHASE_DATA_OUT;
}

bool stick_is_data_command(uint8_t operation)
{
    return operation == 0x28 || operation == 0x2A || operation == 0x88 || operation == 0x8A;
}

static bool is_cbw(const struct stick *stick, const uint8_t *data, uint32_t length)
{
    return length == CBW_SIZE && memcmp(data, "USBC", 4) == 0 && (data[12] & 0x7F) == 0 &&
           data[13] < stick->options.units && data[14] >= 1 && data[14] <= 16;
}

static struct result take_cbw(struct stick *stick, const uint8_t *data, uint32_t length)
{
    struct result result = {.actual = length};
    stick->data_command = length == CBW_SIZE && stick_is_data_command(data[15]);
    stick->counts.data_commands += stick->data_command;
    if (stick_has(stick, STICK_DEAD)) {
        stick->dead = true;
        return result;
    }
    if (!is_cbw(stick, data, length) || stick_has(stick, STICK_STALL_CBW)) {
        stick->wedged = stick->in_halted = stick->out_halted = true;
        return (struct result){.status = -EPIPE};
    }
    memcpy(stick->cbw, data, CBW_SIZE);
    stick->mute |= stick->faults[STICK_MUTE].active;
    stick->counts.commands++;
    stick->unit = data[13];
    stick->host_length = get_le32(data + 8);
    stick->moved = 0;
    stick->status = 0;
    stick->answer_size = stick->out_size = 0;
    stick->answer_data = stick->answer;
    stick->out_data = NULL;
    stick_scsi(stick, &stick->units[stick->unit], stick->cbw + 15);
    if (stick->host_length == 0) {
        bool flush = stick->cbw[15] == 0x35;
        bool wrong =
            flush && (stick->faults[STICK_CASE_2].active || stick->faults[STICK_CASE_3].active);
        if (stick->answer_size + stick->out_size > 0 || (wrong && stick->counts.flushes == 1))
            stick->status = 2;
        end_command(stick);
        return result;
    }
    begin_data(stick, stick->cbw[12] & 0x80);
    if ((stick_has(stick, STICK_CASE_7) || stick_has(stick, STICK_CASE_13)))
        stick->status = 2;
    return result;
}

static struct result take_data(struct stick *stick, const uint8_t *data, uint32_t length)
{
    struct result result = {.actual = length < stick->out_left ? length : stick->out_left};
    if (stick->out_at) {
        memcpy(stick->out_at, data, result.actual);
        stick->out_at += result.actual;
    }
    stick->moved += result.actual;
    stick->out_left -= result.actual;
    if (result.actual < length) {
        stick->out_halted = true;
        result.status = -EPIPE;
    } else if (stick->out_left == 0 && stick->stalls_after) {
        stick->out_halted = true;
    }
    if (stick->out_left == 0) {
        stick_scsi_out(stick, &stick->units[stick->unit], stick->cbw + 15);
        if (stick_has(stick, STICK_SHORT_SILENT))
            stick->moved = stick->host_length;
        end_command(stick);
    }
    return result;
}

struct result stick_out(struct stick *stick, const uint8_t *data, uint32_t length)
{
    if (stick->out_halted)
        return (struct result){.status = -EPIPE};
    if (stick->phase == PHASE_CBW)
        return take_cbw(stick, data, length);
    if (stick->phase == PHASE_DATA_OUT && !stick->mute)
        return take_data(stick, data, length);
    return (struct result){.status = -EINPROGRESS}; /* NAK */
}

static void give_data(struct stick *stick, uint32_t length, struct result *result)
{
    uint32_t size = length < stick->in_left ? length : stick->in_left;
    *result = (struct result){.data = stick->in_data, .actual = size};
    stick->in_data += size;
    stick->in_left -= size;
    stick->moved += size;
    if (stick_has(stick, STICK_DISCONNECT))
        stick->ended = true;
    if (stick_has(stick, STICK_BABBLE))
        result->status = -EOVERFLOW;
    if (stick->in_left > 0)
        return;
    if (size == length && stick->needs_empty) {
        stick->needs_empty = false;
        return;
    }
    stick->in_halted = stick->stalls_after && size == length;
    if (stick_has(stick, STICK_SHORT_SILENT))
        stick->moved = stick->host_length;
    end_command(stick);
}

static void give_csw(struct stick *stick, uint32_t length, struct result *result)
{
    if (stick->csw_stalls > 0) {
        stick->csw_stalls--;
        stick->in_halted = true;
        *result = (struct result){.status = -EPIPE};
        return;
    }
    if (stick->csw_empties > 0) {
        stick->csw_empties--;
        *result = (struct result){0};
        return;
    }
    bool long_one = stick->csw_size > length;
    *result = (struct result){.status = long_one ? -EOVERFLOW : 0,
                              .data = stick->csw,
                              .actual = long_one ? length : stick->csw_size};
    stick->phase = PHASE_CBW;
    stick->data_command = false;
}

bool stick_in(struct stick *stick, uint32_t length, struct result *ret_result)
{
    if (stick->in_halted) {
        *ret_result = (struct result){.status = -EPIPE};
        return true;
    }
    if (stick->mute)
        return false;
    if (stick->phase == PHASE_DATA_IN)
        give_data(stick, length, ret_result);
    else if (stick->phase == PHASE_CSW)
        give_csw(stick, length, ret_result);
    else
        return false;
    return true;
}
