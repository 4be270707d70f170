/*
 * A unit becomes ready in steps, each a command (unit_steps.c). Then its requests are done, and it
 * is looked at now and then.
 */
#include "stick.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <base/alloc.h>
#include <base/clock.h>

enum { NEVER = -1 };
/* For commands that move next to nothing, and the first that read of a medium; and for INQUIRY,
 * which no medium is needed for (SPC-4, 6.4): its last try has as long as the others, for a device
 * that is slow to begin with. */
enum { STEP_MS = 5000, INQUIRY_MS = 2000 };
enum { DISCARD_LEAST = 64 << 10 }; /* bytes that a command must be able to discard */

/* request: NULL: it is the unit's own command. */
static uint32_t patience_of(const struct unit *unit, const struct block_request *request)
{
    bool first = unit->step == STEP_INQUIRY && unit->tries + 1 < TRIES;
    if (request ? unit->has_moved || request->operation != BLOCK_READ : unit->eject != EJECT_NONE)
        return UINT32_MAX;
    return unit->facts.state != USB_UNIT_READY && first ? INQUIRY_MS : STEP_MS;
}

static void limit(struct usb_command *command, uint32_t patience)
{
    if (command->timeout_ms > patience)
        command->timeout_ms = patience;
}

static void tell(struct unit *unit)
{
    struct usb_stick *stick = unit->stick;
    if (stick->changed)
        stick->changed(stick, unit->number, stick->data);
}

static void set_state(struct unit *unit, enum usb_unit_state state, const char *why)
{
    bool changed = unit->facts.state != state;
    unit->facts.state = state;
    snprintf(unit->facts.error, sizeof(unit->facts.error), "%s", why);
    bool is_looked_at = state == USB_UNIT_EMPTY || state == USB_UNIT_READY;
    unit->due = is_looked_at ? clock_ticks() + unit->stick->options.look_ms : 0;
    unit->tries = unit->attentions = unit->changes = 0;
    unit->patience_end = 0;
    if (changed)
        tell(unit);
}

void unit_init(struct unit *unit, struct channel *channel, uint8_t number, uint8_t lun)
{
    unit->stick = channel->stick;
    unit->channel = channel;
    unit->number = number;
    unit->lun = lun;
    unit->answer = xmalloc(ANSWER_SIZE);
    unit->last = &unit->first;
    unit->locked = unit->stick->options.locked_in;
    for (unsigned i = 0; i < LANES_MAX; i++) {
        struct lane *lane = &unit->lanes[i];
        lane->unit = unit;
        lane->command.owner = lane;
    }
}

void unit_lose_medium(struct unit *unit, enum usb_unit_state state, int result, const char *why)
{
    struct disk *disk = unit->disk;
    unit->disk = NULL;
    unit->step = STEP_READY;
    unit->wants_start = false;
    atomic_store(&unit->held, false);
    if (disk)
        disk->gone = result;
    requests_answer(unit, result);
    if (disk && !disk->given)
        disk_free(disk);
    if (unit->eject) {
        unit->eject = EJECT_NONE;
        unit->eject_done(result, unit->eject_data);
    }
    set_state(unit, state, why);
}

static void give_up(struct unit *unit, const char *why)
{
    char text[160];
    snprintf(text, sizeof(text), "%s: %s", unit_steps[unit->step].name, why);
    unit_lose_medium(unit, USB_UNIT_FAILED, -EIO, text);
}

/* All is known. */
static void become_ready(struct unit *unit)
{
    struct usb_unit_facts *facts = &unit->facts;
    struct error err = ERROR_INIT;
    if (facts->sectors == 0) {
        unit->step = STEP_CAPACITY_16;
        give_up(unit, "it does not say how large it is");
        return;
    }
    const struct scsi_limits *limits = &unit->limits;
    uint64_t least = DISCARD_LEAST / (facts->sector_size ? facts->sector_size : DISCARD_LEAST);
    if (limits->unmap < least || limits->descriptors == 0)
        unit->provisioning.unmap = false; /* else it would be asked for ever */
    if (limits->write_same != 0 && limits->write_same < least)
        unit->provisioning.write_same = false;
    facts->discards &= unit->provisioning.unmap || unit->provisioning.write_same;
    unit->has_moved = false;
    unit->disk = disk_create(unit, &err);
    if (unit->disk)
        set_state(unit, USB_UNIT_READY, "");
    else
        unit_lose_medium(unit, USB_UNIT_FAILED, -EIO, error_message(&err));
    error_finish(&err);
}

/* Of what was there before. */
static void forget_medium(struct unit *unit)
{
    unit->facts.sectors = 0;
    unit->facts.write_protected = false;
    unit->facts.caching = true;
    unit->facts.discards = false;
    unit->modes_known = unit->cannot_flush = false;
    unit->unflushed = unit->write_lost = false;
    unit->pages = 0;
    unit->limits = (struct scsi_limits){0};
    unit->provisioning = (struct scsi_provisioning){0};
}

static void next_step(struct unit *unit)
{
    unit->tries = unit->attentions = 0;
    if (unit->step == STEP_READY)
        forget_medium(unit);
    do
        unit->step++;
    while (unit->step < STEPS && unit_steps[unit->step].wanted &&
           !unit_steps[unit->step].wanted(unit));
    if (unit->step == STEPS)
        become_ready(unit);
}

static void step_failed(struct unit *unit, const char *why)
{
    if (unit_steps[unit->step].needed)
        give_up(unit, why);
    else
        next_step(unit);
}

static void step_refused(struct unit *unit, const struct usb_command *command)
{
    struct scsi_sense sense;
    char why[64] = "refused";
    if (scsi_parse_sense(command->sense, command->sense_size, &sense))
        snprintf(why, sizeof(why), "refused (%X/%02X/%02X)", sense.key, sense.code,
                 sense.qualifier);
    step_failed(unit, why);
}

static void wait_for_it(struct unit *unit, int64_t now)
{
    if (!unit->patience_end)
        unit->patience_end = now + unit->stick->options.patience_ms;
    unit->due = now + WAIT_MS;
    if (now >= unit->patience_end)
        give_up(unit, "it does not become ready");
}

static void taken(struct unit *unit, const struct usb_command *command)
{
    size_t size = stick_moved(unit->channel, command);
    if (unit->step == STEP_INQUIRY) {
        size = command->moved;
        /* Some say of every command that nothing of it came, and it did. */
        unit->channel->residue_lies |=
            command->residue == SCSI_INQUIRY_SIZE && size == SCSI_INQUIRY_SIZE;
    }
    int r = unit_steps[unit->step].take(unit, unit->answer, size);
    if (r == -ENODEV)
        give_up(unit, "there is no unit of that number");
    else if (r == -ENOTSUP)
        give_up(unit, "it is no disk");
    else if (r < 0)
        step_failed(unit, "the answer is not as it must be");
    else
        next_step(unit);
}

/* What was asked of the one before is not true of this one. */
static void medium_changed(struct unit *unit)
{
    if (++unit->changes >= ATTENTIONS)
        give_up(unit, "the medium changes again and again");
    else if (unit->step > STEP_READY)
        unit->step = STEP_READY;
}

static void step_done(struct unit *unit, const struct usb_command *command, enum verdict verdict,
                      int64_t now)
{
    switch (verdict) {
    case VERDICT_GOOD:
        taken(unit, command);
        break;
    case VERDICT_AGAIN:
    case VERDICT_RESET:
    case VERDICT_WRITE_LOST:
        if (++unit->attentions >= ATTENTIONS)
            step_failed(unit, "it wants attention again and again");
        break;
    case VERDICT_CHANGED:
        medium_changed(unit);
        break;
    case VERDICT_LOST:
        if (++unit->tries >= TRIES)
            step_failed(unit, "the answer is lost");
        break;
    case VERDICT_LATE:
        if (++unit->tries >= (unit_steps[unit->step].needed ? TRIES : 1))
            step_failed(unit, "no answer");
        break;
    case VERDICT_START:
        unit->wants_start = true;
        wait_for_it(unit, now);
        break;
    case VERDICT_WAIT:
        wait_for_it(unit, now);
        break;
    case VERDICT_EMPTY:
        unit_lose_medium(unit, USB_UNIT_EMPTY, -ENOMEDIUM, "no medium");
        break;
    case VERDICT_REFUSED:
        /* QEMU's units behind the first say LOGICAL UNIT NOT SUPPORTED in place of their first
         * UNIT ATTENTION. */
        if (unit->step != STEP_READY || ++unit->tries >= TRIES)
            step_refused(unit, command);
        break;
    default:
        step_refused(unit, command);
    }
}

/* What is to be done. */

static void look_done(struct unit *unit, enum verdict verdict, int64_t now)
{
    unit->due = now + unit->stick->options.look_ms;
    if (verdict == VERDICT_EMPTY)
        unit_lose_medium(unit, USB_UNIT_EMPTY, -ENOMEDIUM, "no medium");
    else if (verdict == VERDICT_CHANGED)
        unit_lose_medium(unit, USB_UNIT_WAITING, -ENOMEDIUM, "another medium");
}

/* A command beside which there may be no other is under way, or waits for being it. */
static bool has_alone(const struct unit *unit)
{
    for (unsigned i = 0; i < LANES_MAX; i++) {
        const struct lane *lane = &unit->lanes[i];
        if (lane->request ? request_is_alone(lane->request) : lane->flying)
            return true;
    }
    return false;
}

/* In its lanes. */
static bool has_requests(const struct unit *unit)
{
    for (unsigned i = 0; i < LANES_MAX; i++)
        if (unit->lanes[i].request)
            return true;
    return false;
}

bool unit_has_requests(const struct unit *unit)
{
    return unit->first || has_requests(unit);
}

static enum work word_request(struct lane *lane, int64_t now)
{
    struct unit *unit = lane->unit;
    if (lane->request) {
        if (now < lane->due || (request_is_alone(lane->request) && unit->flying > 0))
            return WORK_NONE;
    } else {
        if (has_alone(unit) || (request_is_alone(unit->first) && has_requests(unit)))
            return WORK_NONE;
        requests_take(lane);
    }
    requests_word(lane);
    limit(&lane->command, patience_of(unit, lane->request));
    return WORK_REQUEST;
}

/* What is alone, and no request's. */
static enum work word_own(struct unit *unit, struct usb_command *command)
{
    if (unit->wants_start) {
        scsi_start_stop(command, true, false);
        command->timeout_ms *= FLUSH_FACTOR;
        return WORK_START;
    }
    limit(command, patience_of(unit, NULL));
    if (unit->facts.state != USB_UNIT_READY) {
        memset(unit->answer, 0, ANSWER_SIZE);
        unit_steps[unit->step].word(command, unit->answer);
        return WORK_STEP;
    }
    if (unit->eject) {
        unit_word_eject(unit, command);
        return WORK_EJECT;
    }
    if (!unit->facts.removable)
        return WORK_NONE;
    scsi_test_unit_ready(command);
    return WORK_LOOK;
}

enum work unit_word(struct lane *lane, int64_t now)
{
    struct unit *unit = lane->unit;
    bool ready = unit->facts.state == USB_UNIT_READY;
    if (unit->facts.state == USB_UNIT_FAILED || unit->ejected)
        return WORK_NONE;
    if (ready && !unit->wants_start && !lane->request && unit_wants_lock(unit) && !has_alone(unit))
        return unit_word_lock(unit, &lane->command);
    if (ready && !unit->wants_start && (lane->request || unit->first))
        return word_request(lane, now);
    if (unit->flying > 0 || (has_requests(unit) && !unit->wants_start))
        return WORK_NONE;
    if (now < unit->due && (!ready || (!unit->eject && !unit->wants_start)))
        return WORK_NONE;
    return word_own(unit, &lane->command);
}

/* Whatever it is told with: of writes that were answered as good, some are not there. */
static void note_lost_writes(struct unit *unit, enum verdict verdict)
{
    unit->write_lost |= unit->disk && (verdict == VERDICT_WRITE_LOST ||
                                       (verdict == VERDICT_RESET && unit->unflushed));
}

void unit_done(struct lane *lane, enum verdict verdict, int64_t now)
{
    struct unit *unit = lane->unit;
    if (lane->request && lane->doomed) {
        requests_doom(lane);
        return;
    }
    note_lost_writes(unit, verdict);
    if (verdict == VERDICT_RESET)
        unit->locked = false;
    switch (lane->work) {
    case WORK_NONE:
        break;
    case WORK_STEP:
        step_done(unit, &lane->command, verdict, now);
        break;
    case WORK_START:
        unit->wants_start = false;
        break;
    case WORK_REQUEST:
        unit->due = now + unit->stick->options.look_ms;
        requests_done(lane, verdict, now);
        break;
    case WORK_LOOK:
        look_done(unit, verdict, now);
        break;
    case WORK_LOCK:
        unit_lock_done(unit, verdict);
        break;
    case WORK_EJECT:
        unit_eject_done(unit, verdict);
        break;
    }
}

int64_t unit_due(const struct unit *unit)
{
    enum usb_unit_state state = unit->facts.state;
    int64_t first = INT64_MAX;
    if (state == USB_UNIT_FAILED || unit->ejected)
        return NEVER;
    for (unsigned i = 0; i < LANES_MAX; i++) {
        const struct lane *lane = &unit->lanes[i];
        if (lane->request && !lane->flying && lane->due < first)
            first = lane->due;
    }
    if (unit->flying > 0 || first != INT64_MAX)
        return first == INT64_MAX ? NEVER : first;
    if (unit_wants_lock(unit))
        return clock_ticks();
    if (state == USB_UNIT_READY && !unit->first && !unit->eject && !unit->facts.removable)
        return NEVER;
    return unit->due;
}
