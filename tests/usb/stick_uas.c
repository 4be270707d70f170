/* UAS r04 without streams: READ READY and WRITE READY say whose data are moved next. */
#include <errno.h>
#include <string.h>

#include "../../src/usb/device/wire.h"
#include "stick_internal.h"

enum { COMMAND = 1, SENSE = 3, RESPONSE = 4, FUNCTION = 5, READ_READY = 6, WRITE_READY = 7 };
enum { ABORT_TASK = 1, RESET_UNIT = 8, COMPLETE = 0, INVALID = 2, NOT_SUPPORTED = 4, CDB_AT = 16 };

void stick_uas_reset(struct stick *stick, bool on)
{
    memset(&stick->uas, 0, sizeof(stick->uas));
    stick->uas.on = on;
}

static struct iu *put_iu(struct stick *stick, uint8_t kind, const uint8_t *task, uint32_t size)
{
    struct iu *iu = &stick->uas.ius[stick->uas.iu_count++ % TASKS_MAX];
    memset(iu, 0, sizeof(*iu));
    iu->data[0] = kind;
    memcpy(iu->data + 2, task + 2, 2);
    iu->size = size;
    return iu;
}

static struct unit *unit_of(struct stick *stick, const uint8_t *task)
{
    return &stick->units[task[9] % UNITS_MAX];
}

static void put_response(struct stick *stick, const uint8_t *task, uint8_t code)
{
    put_iu(stick, RESPONSE, task, 8)->data[7] = code;
}

static uint8_t status_of(const struct stick *stick)
{
    return stick_has(stick, STICK_UNIT_BUSY)  ? 0x08
           : stick_has(stick, STICK_SET_FULL) ? 0x28
           : stick->status                    ? 0x02
                                              : 0;
}

/* Some of them are not as they must be. */
static void put_sense(struct stick *stick)
{
    const uint8_t *task = stick->uas.task;
    struct iu *iu = put_iu(stick, SENSE, task, 16);
    iu->data[6] = status_of(stick);
    if (iu->data[6] == 0x02) {
        const uint8_t request[16] = {0x03, [4] = 18};
        stick->status = 0;
        stick->answer_size = 0;
        stick_scsi(stick, unit_of(stick, task), request);
        uint32_t size = stick->answer_size < 20 ? stick->answer_size : 20;
        iu->data[15] = (uint8_t)size;
        memcpy(iu->data + 16, stick->answer, size);
        iu->size += size;
    }
    if (stick_has(stick, STICK_WRONG_TAG))
        iu->data[3] ^= 0x20;
    if (stick_has(stick, STICK_WRONG_SIGNATURE))
        iu->data[0] = 0x55;
    if (stick_has(stick, STICK_SHORT_CSW))
        iu->size = 7;
    if (stick_has(stick, STICK_LONG_CSW))
        iu->data[14] = 0x7F; /* says that there are more */
    if (stick_has(stick, STICK_EMPTY_CSW))
        iu->size = 0;
    stick->uas.status_halted |= stick_has(stick, STICK_STALL_CSW);
    stick->uas.iu_count -= stick_has(stick, STICK_MUTE_CSW);
}

static void end_task(struct stick *stick)
{
    put_sense(stick);
    stick->phase = PHASE_CBW;
    stick->data_command = false;
    stick->uas.busy = false;
}

static void begin_data(struct stick *stick, bool in)
{
    const uint8_t *task = stick->uas.task;
    bool said_in = in != stick_has(stick, STICK_READY_WRONG);
    uint32_t size = in ? stick->answer_size : stick->out_size;
    if (stick_has(stick, STICK_SHORT_DATA))
        size /= 2;
    stick->moved = 0;
    stick->in_data = stick->answer_data;
    stick->in_left = in ? size : 0;
    stick->out_at = stick->out_data;
    stick->out_left = in ? 0 : size;
    stick->phase = in ? PHASE_DATA_IN : PHASE_DATA_OUT;
    put_iu(stick, said_in ? READ_READY : WRITE_READY, task, 4);
    if (stick_has(stick, STICK_READY_TWICE))
        put_iu(stick, READ_READY, task, 4);
    if (stick_has(stick, STICK_STALL_DATA)) {
        *(in ? &stick->in_halted : &stick->out_halted) = true;
        stick->status = 1;
        unit_of(stick, task)->key = 3;
        unit_of(stick, task)->code = 0x11;
        end_task(stick);
    }
}

static void begin_task(struct stick *stick)
{
    const uint8_t *cdb = stick->uas.task + CDB_AT;
    stick->uas.busy = true;
    stick->data_command = stick_is_data_command(cdb[0]);
    stick->counts.data_commands += stick->data_command;
    stick->dead |= stick_has(stick, STICK_DEAD);
    if (stick_has(stick, STICK_UAS_LOST) || stick->dead)
        return;
    if (stick_has(stick, STICK_IU_REFUSED)) {
        put_response(stick, stick->uas.task, INVALID);
        stick->uas.busy = false;
        return;
    }
    stick->status = 0;
    stick->answer_size = stick->out_size = 0;
    stick->answer_data = stick->answer;
    stick->out_data = NULL;
    stick_scsi(stick, unit_of(stick, stick->uas.task), cdb);
    if (stick->answer_size + stick->out_size > 0 && status_of(stick) == 0)
        begin_data(stick, stick->answer_size > 0);
    else
        end_task(stick);
}

static void take_task(struct stick *stick, unsigned i)
{
    struct uas_model *uas = &stick->uas;
    memcpy(uas->task, uas->tasks[i], COMMAND_IU_SIZE);
    memmove(uas->tasks[i], uas->tasks[i + 1], (--uas->task_count - i) * COMMAND_IU_SIZE);
}

static void begin_next(struct stick *stick)
{
    struct uas_model *uas = &stick->uas;
    if (uas->busy || uas->task_count == 0)
        return;
    take_task(stick, stick_has(stick, STICK_REORDER) ? uas->task_count - 1 : 0);
    begin_task(stick);
}

/* All of a unit, or that of one tag. */
static void forget(struct stick *stick, const uint8_t *tag, uint8_t unit)
{
    struct uas_model *uas = &stick->uas;
    for (unsigned i = uas->task_count; i-- > 0;) {
        const uint8_t *task = uas->tasks[i];
        if (tag ? memcmp(task + 2, tag, 2) == 0 : task[9] == unit)
            memmove(uas->tasks[i], uas->tasks[i + 1], (--uas->task_count - i) * COMMAND_IU_SIZE);
    }
    if (uas->busy && (tag ? memcmp(uas->task + 2, tag, 2) == 0 : uas->task[9] == unit)) {
        uas->busy = stick->data_command = stick->mute = false;
        stick->phase = PHASE_CBW;
    }
}

static void carry_out_function(struct stick *stick, const uint8_t *iu)
{
    bool abort = iu[4] == ABORT_TASK;
    stick->counts.functions++;
    if (stick_has(stick, STICK_FUNCTIONS_MUTE))
        return;
    if (stick_has(stick, STICK_FUNCTIONS_REFUSED) ||
        (abort && stick_has(stick, STICK_ABORT_REFUSED)) || (!abort && iu[4] != RESET_UNIT)) {
        put_response(stick, iu, NOT_SUPPORTED);
        return;
    }
    forget(stick, abort ? iu + 6 : NULL, iu[9]);
    put_response(stick, iu, COMPLETE);
}

static struct result take_iu(struct stick *stick, const uint8_t *data, uint32_t length)
{
    struct uas_model *uas = &stick->uas;
    struct result result = {.actual = length};
    if (stick_has(stick, STICK_UAS_MUTE))
        return result;
    if (length == COMMAND_IU_SIZE && data[0] == COMMAND && uas->task_count < TASKS_MAX - 1) {
        bool counts = stick_is_data_command(data[CDB_AT]);
        unsigned number = stick->counts.data_commands + counts;
        const struct fault *fault = &stick->faults[STICK_STALL_CBW];
        if (fault->active && counts && number >= fault->first && number <= fault->last) {
            stick->counts.data_commands++;
            uas->command_halted = true;
            return (struct result){.status = -EPIPE};
        }
        stick->counts.commands++;
        memcpy(uas->tasks[uas->task_count++], data, COMMAND_IU_SIZE);
        if (uas->task_count + uas->busy > stick->counts.most_at_once)
            stick->counts.most_at_once = uas->task_count + uas->busy;
    } else if (length == 16 && data[0] == FUNCTION) {
        carry_out_function(stick, data);
    } else {
        put_response(stick, data, INVALID);
    }
    return result;
}

struct result stick_uas_out(struct stick *stick, uint8_t endpoint, const uint8_t *data,
                            uint32_t length)
{
    if (endpoint == EP_COMMAND ? stick->uas.command_halted : stick->out_halted)
        return (struct result){.status = -EPIPE};
    if (endpoint == EP_COMMAND)
        return take_iu(stick, data, length);
    if (stick->phase != PHASE_DATA_OUT || stick_has(stick, STICK_MUTE_DATA))
        return (struct result){.status = -EINPROGRESS};
    struct result result = {.actual = length < stick->out_left ? length : stick->out_left};
    if (stick->out_at)
        memcpy(stick->out_at, data, result.actual);
    stick->moved = result.actual;
    if (stick_has(stick, STICK_DISCONNECT))
        stick->ended = true;
    stick_scsi_out(stick, unit_of(stick, stick->uas.task), stick->uas.task + CDB_AT);
    end_task(stick);
    return result;
}

static void give_data(struct stick *stick, uint32_t length, struct result *result)
{
    uint32_t size = length < stick->in_left ? length : stick->in_left;
    *result = (struct result){.data = stick->in_data, .actual = size};
    stick->in_data += size;
    stick->in_left -= size;
    if (stick_has(stick, STICK_DISCONNECT))
        stick->ended = true;
    if (stick_has(stick, STICK_BABBLE))
        result->status = -EOVERFLOW;
    if (stick->in_left == 0)
        end_task(stick);
}

bool stick_uas_in(struct stick *stick, uint8_t endpoint, uint32_t length, struct result *ret_result)
{
    struct uas_model *uas = &stick->uas;
    bool status = endpoint == EP_STATUS;
    if (status ? uas->status_halted : stick->in_halted) {
        *ret_result = (struct result){.status = -EPIPE};
        return true;
    }
    if (!status) {
        bool gives = stick->phase == PHASE_DATA_IN && !stick_has(stick, STICK_MUTE_DATA);
        if (gives)
            give_data(stick, length, ret_result);
        return gives;
    }
    if (uas->iu_count == 0)
        begin_next(stick); /* not before: what the one before answered has been sent */
    if (uas->status_halted || uas->iu_count == 0) {
        *ret_result = (struct result){.status = -EPIPE};
        return uas->status_halted;
    }
    uas->given = uas->ius[0];
    *ret_result = (struct result){.data = uas->given.data, .actual = uas->given.size};
    memmove(uas->ius, uas->ius + 1, --uas->iu_count * sizeof(uas->ius[0]));
    return true;
}
