/*
 * The steps by which a unit becomes ready: which command each is, and what is taken of its answer.
 */
#include "stick.h"

#include <errno.h>
#include <string.h>

enum { SPC_3 = 5 };

static int take_inquiry(struct unit *unit, const uint8_t *data, size_t size)
{
    struct usb_unit_facts *facts = &unit->facts;
    struct scsi_inquiry inquiry;
    if (scsi_parse_inquiry(data, size, &inquiry) != 0)
        return -EPROTO;
    if (inquiry.qualifier != 0)
        return -ENODEV;
    if (inquiry.type != 0)
        return -ENOTSUP;
    unit->version = inquiry.version;
    facts->removable = inquiry.removable;
    memcpy(facts->vendor, inquiry.vendor, sizeof(facts->vendor));
    memcpy(facts->product, inquiry.product, sizeof(facts->product));
    memcpy(facts->revision, inquiry.revision, sizeof(facts->revision));
    return 0;
}

static int take_nothing(struct unit *unit, const uint8_t *data, size_t size)
{
    return 0;
}

static int take_capacity(struct unit *unit, const struct scsi_capacity *capacity)
{
    unit->facts.sectors = capacity->sectors;
    unit->facts.sector_size = capacity->sector_size;
    unit->facts.discards = capacity->discards;
    return 0;
}

static int take_capacity10(struct unit *unit, const uint8_t *data, size_t size)
{
    struct scsi_capacity capacity;
    int r = scsi_parse_capacity10(data, size, &capacity);
    return r == 0 ? take_capacity(unit, &capacity) : r;
}

/* Where both answer they must agree. */
static int take_capacity16(struct unit *unit, const uint8_t *data, size_t size)
{
    struct scsi_capacity capacity;
    int r = scsi_parse_capacity16(data, size, &capacity);
    if (r == 0 && unit->facts.sectors != 0 &&
        (capacity.sectors != unit->facts.sectors ||
         capacity.sector_size != unit->facts.sector_size))
        r = -EPROTO;
    return r == 0 ? take_capacity(unit, &capacity) : r;
}

static bool wants_capacity16(const struct unit *unit)
{
    return unit->facts.sectors == 0 || unit->version >= SPC_3;
}

static bool wants_pages(const struct unit *unit)
{
    return unit->version >= SPC_3;
}

static int take_pages(struct unit *unit, const uint8_t *data, size_t size)
{
    static const enum scsi_page pages[STEPS] = {
        [STEP_SERIAL] = SCSI_PAGE_SERIAL,
        [STEP_NAMES] = SCSI_PAGE_NAMES,
        [STEP_LIMITS] = SCSI_PAGE_LIMITS,
        [STEP_PROVISIONING] = SCSI_PAGE_PROVISIONING,
    };
    for (enum step step = 0; step < STEPS; step++)
        if (pages[step] && scsi_has_page(data, size, pages[step]))
            unit->pages = (uint16_t)(unit->pages | 1U << step);
    return 0;
}

static bool wants_page(const struct unit *unit)
{
    return unit->pages & 1U << unit->step;
}

static int take_serial(struct unit *unit, const uint8_t *data, size_t size)
{
    if (!scsi_parse_serial(data, size, unit->facts.serial, sizeof(unit->facts.serial)))
        unit->facts.serial[0] = '\0';
    return 0;
}

static int take_names(struct unit *unit, const uint8_t *data, size_t size)
{
    if (!scsi_parse_name(data, size, unit->facts.name, sizeof(unit->facts.name)))
        unit->facts.name[0] = '\0';
    return 0;
}

static int take_limits(struct unit *unit, const uint8_t *data, size_t size)
{
    return scsi_parse_limits(data, size, &unit->limits) ? 0 : -EPROTO;
}

static int take_provisioning(struct unit *unit, const uint8_t *data, size_t size)
{
    return scsi_parse_provisioning(data, size, &unit->provisioning) ? 0 : -EPROTO;
}

static int take_modes(struct unit *unit, const uint8_t *data, size_t size, bool ten)
{
    struct scsi_modes modes;
    int r = scsi_parse_modes(data, size, ten, &modes);
    if (r != 0)
        return r;
    unit->modes_known = true;
    unit->facts.write_protected = modes.write_protected;
    unit->facts.caching = modes.caching || !modes.has_caching;
    return 0;
}

static int take_modes6(struct unit *unit, const uint8_t *data, size_t size)
{
    return take_modes(unit, data, size, false);
}

static int take_modes10(struct unit *unit, const uint8_t *data, size_t size)
{
    return take_modes(unit, data, size, true);
}

static bool wants_modes(const struct unit *unit)
{
    return !unit->modes_known;
}

static void word_ready(struct usb_command *command, void *data)
{
    scsi_test_unit_ready(command);
}

#define WORD_PAGE(name, page)                                                                      \
    static void name(struct usb_command *command, void *data)                                      \
    {                                                                                              \
        scsi_inquiry_page(command, page, data);                                                    \
    }
WORD_PAGE(word_pages, SCSI_PAGE_LIST)
WORD_PAGE(word_serial, SCSI_PAGE_SERIAL)
WORD_PAGE(word_names, SCSI_PAGE_NAMES)
WORD_PAGE(word_limits, SCSI_PAGE_LIMITS)
WORD_PAGE(word_provisioning, SCSI_PAGE_PROVISIONING)

const struct unit_step unit_steps[STEPS] = {
    [STEP_INQUIRY] = {"INQUIRY", NULL, scsi_inquiry, take_inquiry, true},
    [STEP_READY] = {"TEST UNIT READY", NULL, word_ready, take_nothing, true},
    [STEP_CAPACITY_10] = {"READ CAPACITY(10)", NULL, scsi_read_capacity10, take_capacity10, true},
    [STEP_CAPACITY_16] = {"READ CAPACITY(16)", wants_capacity16, scsi_read_capacity16,
                          take_capacity16, false},
    [STEP_PAGES] = {"INQUIRY, list of pages", wants_pages, word_pages, take_pages, false},
    [STEP_SERIAL] = {"INQUIRY, page 80", wants_page, word_serial, take_serial, false},
    [STEP_NAMES] = {"INQUIRY, page 83", wants_page, word_names, take_names, false},
    [STEP_LIMITS] = {"INQUIRY, page B0", wants_page, word_limits, take_limits, false},
    [STEP_PROVISIONING] = {"INQUIRY, page B2", wants_page, word_provisioning, take_provisioning,
                           false},
    [STEP_MODES_6] = {"MODE SENSE(6)", wants_modes, scsi_mode_sense6, take_modes6, false},
    [STEP_MODES_10] = {"MODE SENSE(10)", wants_modes, scsi_mode_sense10, take_modes10, false},
};
