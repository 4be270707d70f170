/*
 * A USB stick in user space: a USB/IP server of one device, bulk-only transport or UAS, SCSI disks
 * over memory or an image. It keeps to the specifications, but for the faults it is told to have.
 */
#ifndef TESTS_USB_STICK_H
#define TESTS_USB_STICK_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* name, what it does. Those of data commands (READ, WRITE) come with the n-th of them. */
#define STICK_FAULTS(X)                                                                            \
    X(WRONG_TAG, "wrong-tag")             /* in the CSW */                                         \
    X(WRONG_SIGNATURE, "wrong-signature") /* of the CSW */                                         \
    X(SHORT_CSW, "short-csw")             /* 7 bytes */                                            \
    X(LONG_CSW, "long-csw")               /* 20 bytes */                                           \
    X(EMPTY_CSW, "empty-csw")             /* no bytes, the next one is good */                     \
    X(STALL_CBW, "stall-cbw")             /* as if it were none, until reset recovery */           \
    X(STALL_DATA, "stall-data")           /* and the command fails */                              \
    X(STALL_CSW, "stall-csw")             /* once */                                               \
    X(STALL_CSW_TWICE, "stall-csw-twice")                                                          \
    X(PHASE_ERROR, "phase-error")                                                                  \
    X(RESIDUE_LIE, "residue-lie")       /* all was moved, half of it is said to be missing */      \
    X(RESIDUE_ALWAYS, "residue-always") /* of all commands: all is said to be missing */           \
    X(RESIDUE_HUGE, "residue-huge")     /* more than was asked for */                              \
    X(CASE_2, "case-2")                 /* BOT 6.7: Hn < Di, of SYNCHRONIZE CACHE */               \
    X(CASE_3, "case-3")                 /* Hn < Do, of SYNCHRONIZE CACHE */                        \
    X(CASE_4, "case-4")                 /* Hi > Dn */                                              \
    X(CASE_5, "case-5")                 /* Hi > Di */                                              \
    X(CASE_7, "case-7")                 /* Hi < Di */                                              \
    X(CASE_8, "case-8")                 /* Hi <> Do */                                             \
    X(CASE_9, "case-9")                 /* Ho > Dn */                                              \
    X(CASE_10, "case-10")               /* Ho <> Di */                                             \
    X(CASE_11, "case-11")               /* Ho > Do */                                              \
    X(CASE_13, "case-13")               /* Ho < Do */                                              \
    X(SHORT_DATA, "short-data")         /* half, a short packet, no stall, residue right */        \
    X(SHORT_SILENT, "short-silent")     /* half, and the CSW says all */                           \
    X(BABBLE, "babble")                 /* data beyond what a transfer asks for */                 \
    X(MUTE_DATA, "mute-data")           /* never answers the data phase */                         \
    X(MUTE_CSW, "mute-csw")                                                                        \
    X(DISCONNECT, "disconnect")             /* amid the data */                                    \
    X(DEAD, "dead")                         /* answers nothing from then on, not even resets */    \
    X(RESET_STALLS, "reset-stalls")         /* the class's reset is stalled: the port's helps */   \
    X(WRONG_ANSWER, "usbip-number")         /* an answer to nothing that was asked */              \
    X(TOO_MUCH, "usbip-length")             /* more bytes than were asked for */                   \
    X(CUT_ANSWER, "usbip-cut")              /* half an answer, then the end */                     \
    X(MEDIUM_ERROR, "medium-error")         /* 3/11/00 */                                          \
    X(ABORTED, "aborted")                   /* B/00/06, with all of the data */                    \
    X(DEFERRED, "deferred")                 /* 3/0C/00 of a write before, in deferred format */    \
    X(CSW_FIRST, "csw-first")               /* in place of the data of a READ */                   \
    X(BUS_RESET, "bus-reset")               /* UNIT ATTENTION 6/29/00 */                           \
    X(MEDIUM_CHANGE, "medium-change")       /* 6/28/00: zeros from then on */                      \
    X(CAPACITY_CHANGED, "capacity-changed") /* 6/2A/09: half as large from then on */              \
    X(MEDIUM_GONE, "medium-gone")           /* 2/3A/00 from then on */                             \
    X(SENSE_JUNK, "sense-junk")             /* the command fails and the sense data are chance */  \
    X(SENSE_STALLS, "sense-stalls")         /* the same, REQUEST SENSE fails, too */               \
    X(DESCRIPTOR_SENSE, "descriptor-sense") /* medium errors in descriptor format */               \
    X(WRITE_PROTECT, "write-protect")       /* 7/27/00, though MODE SENSE says it is not */        \
    /* UAS only; there the ones above of CBW and CSW are of information units. */                  \
    X(IU_REFUSED, "iu-refused")   /* a response: it is none */                                     \
    X(READY_WRONG, "ready-wrong") /* for data that go the other way */                             \
    X(READY_TWICE, "ready-twice")                                                                  \
    X(UNIT_BUSY, "unit-busy") /* status BUSY */                                                    \
    X(SET_FULL, "set-full")   /* status TASK SET FULL */                                           \
    X(UAS_LOST, "uas-lost")   /* never answered */                                                 \
    /* From the beginning. */                                                                      \
    X(NO_MEDIUM, "no-medium")                                                                      \
    X(MUTE, "mute")                           /* answers no command at all */                      \
    X(REORDER, "reorder")                     /* UAS: the newest first */                          \
    X(ABORT_REFUSED, "abort-refused")         /* UAS: ABORT TASK is not known */                   \
    X(FUNCTIONS_REFUSED, "functions-refused") /* nor LOGICAL UNIT RESET */                         \
    X(FUNCTIONS_MUTE, "functions-mute")       /* not answered */                                   \
    X(UAS_MUTE, "uas-mute")                   /* UAS answers nothing */                            \
    X(PIPES_LIE, "pipes-lie") /* UAS: data out is said to be an endpoint towards the host */       \
    X(PIPES_NONE, "pipes-none")                                                                    \
    X(ATTENTION, "unit-attention")    /* 6/29/00 to the first command */                           \
    X(BECOMES_READY, "becomes-ready") /* 2/04/01 five times */                                     \
    X(NEEDS_START, "needs-start")     /* 2/04/02 until START STOP UNIT */                          \
    X(NEVER_READY, "never-ready")     /* 2/04/01 for ever */                                       \
    X(READY_REFUSED, "ready-refused") /* 5/25/00 to the first TEST UNIT READY */                   \
    X(CAPACITY_NONE, "capacity-none")                                                              \
    X(CAPACITY_HUGE, "capacity-huge")     /* 2^64 sectors */                                       \
    X(CAPACITY_ODD, "capacity-odd")       /* sectors of 520 bytes */                               \
    X(CAPACITY_SHORT, "capacity-short")   /* 5 bytes of answer */                                  \
    X(NO_MODES, "no-modes")               /* MODE SENSE is refused */                              \
    X(NO_SYNC, "no-sync")                 /* SYNCHRONIZE CACHE is refused */                       \
    X(NO_PREVENT, "no-prevent")           /* PREVENT ALLOW MEDIUM REMOVAL is refused */            \
    X(PREVENT_HANGS, "prevent-hangs")     /* ... is never answered */                              \
    X(NO_WAY_BACK, "uas-no-way-back")     /* SET_INTERFACE to bulk-only transport is refused */    \
    X(DISCARD_REFUSED, "discard-refused") /* UNMAP, WRITE SAME: not known after all */             \
    X(SYNC_LOST, "sync-lost")             /* the first SYNCHRONIZE CACHE is aborted */             \
    X(CHANGE_EARLY, "change-early")     /* 6/28/00 to MODE SENSE once: half as large from then */  \
    X(INQUIRY_PADDED, "inquiry-padded") /* INQUIRY's residue is 5, though all came */              \
    X(INQUIRY_STALLS, "inquiry-stalls")                                                            \
    X(INQUIRY_JUNK, "inquiry-junk")                                                                \
    X(LUN_STALLS, "lun-stalls")     /* GET MAX LUN, as sticks of one unit may */                   \
    X(LUN_LIE, "lun-lie")           /* 200 */                                                      \
    X(DEVICE_SHORT, "device-short") /* 8 bytes of device descriptor */                             \
    X(DEVICE_MANY, "device-many")   /* 255 configurations */                                       \
    X(DEVICE_STALLS, "device-stalls")                                                              \
    X(TOTAL_LIE, "total-lie")       /* wTotalLength 65535 */                                       \
    X(TOTAL_SHORT, "total-short")   /* less comes than it says */                                  \
    X(COUNT_LIE, "count-lie")       /* 9 interfaces */                                             \
    X(ENDPOINT_LIE, "endpoint-lie") /* 3 endpoints said, 2 there */                                \
    X(NESTED, "nested")             /* a configuration in a configuration */                       \
    X(LENGTH_ZERO, "length-zero")   /* a descriptor of 0 bytes */                                  \
    X(NO_ENDPOINTS, "no-endpoints")                                                                \
    X(SWAPPED, "configurations-swapped") /* once one is set it says that the other is; of two */   \
    X(KEYBOARD, "keyboard")              /* no mass storage at all */                              \
    X(ALSO_KEYBOARD, "also-keyboard")    /* as a second interface */                               \
    X(STRING_JUNK, "string-junk")                                                                  \
    X(RANDOM, "random") /* descriptors of chance */

enum stick_fault {
#define X(name, text) STICK_##name,
    STICK_FAULTS(X)
#undef X
        STICK_FAULT_COUNT
};

/* By which commands it can be told what is not needed any more. */
enum stick_provisioning { STICK_UNMAP_AND_WS16, STICK_UNMAP, STICK_WS16, STICK_UNPROVISIONED };

/* What the sectors are that it pretends to have. */
enum stick_beyond { STICK_FOLDS /* some of the first */, STICK_WRAPS, STICK_VANISHES };

struct stick_options {
    const char *image;       /* NULL: memory */
    uint32_t sector_size;    /* 0: 512 */
    uint64_t sectors;        /* of memory; 0: 2048 */
    uint64_t pretended;      /* sectors it says it has; what is behind the others reads as zeros */
    unsigned units;          /* of each interface; 0: 1 */
    unsigned interfaces;     /* of mass storage, each with disks of its own; 0: 1 */
    unsigned configurations; /* 0: 1; 2: storage is in the second, the first is a keyboard */
    bool read_only, fixed, uncached;
    unsigned version; /* of INQUIRY; 0: 6 (SPC-4) */
    bool uas;         /* knows it as setting 1, beside bulk-only transport */
    bool uas_only;    /* ... as setting 0 */
    uint16_t absent;  /* bit n: there is no unit n; of REPORT LUNS */
    bool is_volatile; /* what was not flushed stays in memory, see stick_lose_power() */
    unsigned chance;  /* the seed of what is lost */
    unsigned slow_ms; /* that each READ and WRITE takes */
    enum stick_provisioning provisioning;
    uint32_t unmap_most, same_most; /* sectors of such a command; 0: 65536, and not said */
    enum stick_beyond beyond;
    uint64_t varying_first, varying_count; /* sectors: each second reading of them is another one */
    unsigned drops_from; /* the WRITE from which on none is carried out, 1: the first; 0: never */
    unsigned late_ms;    /* that each command takes */
    unsigned changes_at; /* the command with which the medium changes, 1: the first; 0: never */
    const char *next_image; /* ... to that, of the same size */
    const uint8_t *strings; /* STICK_STRING, in place of all it says of itself in descriptors */
    const uint8_t *inquiry; /* STICK_INQUIRY_SIZE, the same of INQUIRY */
};

enum { STICK_STRING = 252, STICK_INQUIRY_SIZE = 28 }; /* bytes of these */

struct stick;

struct stick *stick_create(const struct stick_options *options, const char **ret_error);
void stick_destroy(struct stick *stick);

/* "NAME", "NAME@N": with the N-th data command, "NAME@N+": with that and all that follow. "I:" in
 * front of it: of interface I, from 0. False: there is none of that name. */
bool stick_add_fault(struct stick *stick, const char *text);
/* How often it was met, by the same text, of which the first counts. Any thread. */
unsigned stick_fired(const struct stick *stick, const char *text);
void stick_list_faults(FILE *file);

/* Until the other side closes. */
void stick_serve(struct stick *stick, int fd);

/* Of what was not flushed each sector is kept or lost, by chance. */
void stick_lose_power(struct stick *stick);

/* One of its interfaces, which is served with the whole; 0: the stick itself. */
struct stick *stick_interface(struct stick *stick, unsigned number);

/* The disk's bytes; the same for all units of an interface. */
uint8_t *stick_disk(struct stick *stick);

/* What the host has done so far; not while it is being served by another thread. */
struct stick_counts {
    unsigned commands, data_commands, class_resets, port_resets, cleared_halts, flushes, discards,
        starts, stops, allows, prevents;
    uint64_t last_sector;  /* the first one of the last READ or WRITE */
    unsigned varied;       /* readings that were others */
    unsigned functions;    /* of task management */
    unsigned most_at_once; /* commands of UAS */
};
struct stick_counts stick_counts(const struct stick *stick);

/* The first commands that told it so, by UNMAP and WRITE SAME(16). */
enum { STICK_DISCARDS_KEPT = 16 };
struct stick_discard {
    uint8_t cdb[16], list[24]; /* list: of UNMAP; of WRITE SAME the first bytes of its sector */
};
const struct stick_discard *stick_discards(const struct stick *stick);

#endif
