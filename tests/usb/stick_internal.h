/* The stick's parts: stick.c serves, stick_control.c knows endpoint 0, stick_bot.c the bulk
 * endpoints, stick_uas.c those of UAS, stick_scsi.c commands. */
#ifndef TESTS_USB_STICK_INTERNAL_H
#define TESTS_USB_STICK_INTERNAL_H

#include <stdatomic.h>
#include <stddef.h>

#include "stick.h"

enum { UNITS_MAX = 16, URBS_MAX = 64, ANSWER_MAX = 4096, CBW_SIZE = 31, CSW_SIZE = 13 };

enum { EP_IN = 0x81, EP_OUT = 0x02, EP_STATUS = 0x83, EP_COMMAND = 0x04 };
enum { INTERFACES_MAX = 4, LATER_ENDPOINTS = 5 }; /* two for each interface behind the first */
enum { TASKS_MAX = 64, IU_MAX = 64, COMMAND_IU_SIZE = 32 };

enum phase { PHASE_CBW, PHASE_DATA_IN, PHASE_DATA_OUT, PHASE_CSW };

struct fault {
    bool active;
    unsigned first, last; /* data commands, from 1 */
};

struct unit {
    bool attention, absent, started, refused;
    bool swapped;       /* there is another medium, of which nobody knows yet */
    unsigned not_ready; /* answers */
    uint8_t key, code, qualifier;
    bool deferred;
};

/* A bulk IN transfer that waits. */
struct urb {
    uint32_t number, length;
    uint8_t endpoint;
};

/* What waits for the status pipe. */
struct iu {
    uint8_t data[IU_MAX];
    uint32_t size;
};

/* UAS: commands are taken as they come and carried out one after the other. */
struct uas_model {
    bool on; /* its setting is chosen */
    bool status_halted, command_halted, mute;
    uint8_t tasks[TASKS_MAX][COMMAND_IU_SIZE]; /* that wait, the oldest first */
    unsigned task_count;
    bool busy;
    uint8_t task[COMMAND_IU_SIZE]; /* that is carried out */
    struct iu ius[TASKS_MAX];
    unsigned iu_count;
    struct iu given; /* the last of them */
};

struct result {
    int32_t status; /* as of URBs; 0, -EPIPE ... */
    const uint8_t *data;
    uint32_t actual;
};

struct stick {
    struct stick_options options;
    uint8_t *disk;
    uint64_t disk_size;
    uint8_t *kept; /* of a disk with a volatile cache: what the power leaves. Else NULL */
    unsigned chance;
    unsigned readings, writes, scsi_commands;
    struct fault faults[STICK_FAULT_COUNT];
    atomic_uint fired[STICK_FAULT_COUNT]; /* times */
    struct unit units[UNITS_MAX];
    struct stick_counts counts;
    uint8_t configuration; /* that is set */
    struct stick_discard discards[STICK_DISCARDS_KEPT];
    bool wedged, dead, ended, changed, changed_early;

    /* Bulk-only transport. */
    enum phase phase;
    bool in_halted, out_halted, mute, needs_empty, stalls_after, data_command;
    unsigned csw_stalls, csw_empties;
    uint8_t cbw[CBW_SIZE], csw[32];
    uint32_t csw_size, host_length, moved;
    uint8_t unit;
    const uint8_t *in_data;
    uint32_t in_left, out_left;
    uint8_t *out_at; /* NULL: nowhere */

    /* What a command comes to. */
    uint8_t status;
    uint8_t answer[ANSWER_MAX];
    const uint8_t *answer_data;
    uint8_t *out_data;
    uint32_t answer_size, out_size;

    struct uas_model uas;

    struct urb urbs[URBS_MAX];
    unsigned urb_count;

    /* Those behind the first, which speak bulk-only transport. */
    struct stick *interfaces[INTERFACES_MAX];
};

/* A fault from the beginning, or one of the data command that is under way. */
bool stick_has(const struct stick *stick, enum stick_fault fault);
bool stick_always_has(struct stick *stick, enum stick_fault fault); /* whatever the command */

/* Endpoint 0. data: of the host; the answer's is the stick's. */
struct result stick_control(struct stick *stick, const uint8_t *setup, const uint8_t *data,
                            uint32_t length);

struct result stick_out(struct stick *stick, const uint8_t *data, uint32_t length);
/* False: not yet. */
bool stick_in(struct stick *stick, uint32_t length, struct result *ret_result);
bool stick_is_data_command(uint8_t operation);

struct result stick_uas_out(struct stick *stick, uint8_t endpoint, const uint8_t *data,
                            uint32_t length);
bool stick_uas_in(struct stick *stick, uint8_t endpoint, uint32_t length,
                  struct result *ret_result);
void stick_uas_reset(struct stick *stick, bool on);
void stick_bulk_reset(struct stick *stick);

/* Sets status, answer and out of the stick. */
void stick_scsi(struct stick *stick, struct unit *unit, const uint8_t *cdb);
/* The data of the command have come. */
void stick_scsi_out(struct stick *stick, struct unit *unit, const uint8_t *cdb);

/* Whose it is. */
struct stick *stick_of_endpoint(struct stick *stick, uint8_t endpoint);

uint32_t stick_descriptor(struct stick *stick, uint16_t value, const uint8_t **ret_data);

/* What was written is not lost with the power any more. */
void stick_keep(struct stick *stick);

/* The disk. stick_map: what went wrong, or NULL. Places are the stick's, until the next command. */
const char *stick_map(struct stick *stick, const char *image);
void stick_unmap(struct stick *stick);
uint8_t *stick_place(struct stick *stick, uint64_t sector, uint64_t count);
uint8_t *stick_read_from(struct stick *stick, uint64_t sector, uint64_t count);
uint8_t *stick_write_to(struct stick *stick, uint64_t sector, uint64_t count);
/* With each command: whether the medium is another one from now on. */
bool stick_change_medium(struct stick *stick);

#endif
