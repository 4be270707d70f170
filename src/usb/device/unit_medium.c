/* A medium is let go of, or kept in. */
#include "stick.h"

#include <errno.h>

enum { LOCK_MS = 5000 };

/* Ejecting. */

void unit_word_eject(struct unit *unit, struct usb_command *command)
{
    if (unit->eject == EJECT_FLUSH && (!unit->disk->device.flushes || unit->cannot_flush))
        unit->eject = EJECT_ALLOW;
    switch (unit->eject) {
    case EJECT_FLUSH:
        scsi_synchronize_cache(command, unit->facts.sectors > UINT32_MAX);
        command->timeout_ms *= FLUSH_FACTOR;
        break;
    case EJECT_ALLOW:
        scsi_prevent_removal(command, false);
        break;
    default:
        scsi_start_stop(command, false, true);
    }
}

/* Only what became of the flush counts. */
void unit_eject_done(struct unit *unit, enum verdict verdict)
{
    bool again = verdict == VERDICT_AGAIN || verdict == VERDICT_RESET;
    bool lost = verdict == VERDICT_LOST || verdict == VERDICT_LATE;
    if ((again && ++unit->attentions < ATTENTIONS) || (lost && ++unit->tries < TRIES))
        return;
    if (unit->eject == EJECT_FLUSH && verdict != VERDICT_GOOD && verdict != VERDICT_REFUSED)
        unit->eject_result = -EIO;
    if (unit->eject == EJECT_FLUSH && requests_flushed(unit) != 0)
        unit->eject_result = -EIO;
    unit->tries = unit->attentions = 0;
    if (unit->eject++ < EJECT_STOP)
        return;
    unit->eject = EJECT_NONE;
    unit->ejected = true;
    unit->locked = false;
    unit_lose_medium(unit, USB_UNIT_EMPTY, -ENOMEDIUM, "ejected");
    unit->eject_done(unit->eject_result, unit->eject_data);
}

/* Locking in: SPC-4, 6.18. What is locked in stays so while its unit tells of changes. */

bool unit_wants_lock(const struct unit *unit)
{
    return unit->facts.state == USB_UNIT_READY && unit->facts.removable && !unit->cannot_lock &&
           !unit->eject && atomic_load(&unit->held) != unit->locked;
}

bool unit_is_locked(const struct unit *unit)
{
    bool locked = unit->locked && unit->facts.removable && !unit->cannot_lock &&
                  unit->facts.state == USB_UNIT_READY;
    for (unsigned i = 0; i < LANES_MAX; i++)
        locked |= unit->lanes[i].flying && unit->lanes[i].work == WORK_LOCK;
    return locked;
}

/* Many sticks do not know the command, some hang with it, and nothing depends on it: such a one is
 * not asked again. */
void unit_lock_done(struct unit *unit, enum verdict verdict)
{
    bool again = verdict == VERDICT_AGAIN || verdict == VERDICT_RESET;
    bool waits = verdict == VERDICT_WAIT;
    if ((again && ++unit->attentions < ATTENTIONS) || (waits && ++unit->tries < TRIES))
        return;
    unit->tries = unit->attentions = 0;
    if (verdict == VERDICT_GOOD)
        unit->locked = unit->locking;
    else if (verdict == VERDICT_EMPTY)
        unit_lose_medium(unit, USB_UNIT_EMPTY, -ENOMEDIUM, "no medium");
    else if (verdict == VERDICT_CHANGED)
        unit_lose_medium(unit, USB_UNIT_WAITING, -ENOMEDIUM, "another medium");
    else
        unit->cannot_lock = true;
}

enum work unit_word_lock(struct unit *unit, struct usb_command *command)
{
    unit->locking = atomic_load(&unit->held);
    scsi_prevent_removal(command, unit->locking);
    if (command->timeout_ms > LOCK_MS)
        command->timeout_ms = LOCK_MS;
    return WORK_LOCK;
}
