/* A stick's model in a thread, the stack's device thread over USB/IP, and a cmocka test. */
#ifndef TESTS_USB_RIG_H
#define TESTS_USB_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include <base/clock.h>
#include <usb/disk.h>

#include "stick.h"

enum { PATIENCE = 20000, BIG = 1 << 20, SECTORS = 8192 };

struct rig {
    struct stick *model;
    int fds[2];
    pthread_t server, device;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct usb_stick *stick; /* of the device thread, but for wake */
    int opened;              /* result; 1: not yet */
    char message[256];
    bool over, wants_disk[16], wants_eject;
    atomic_bool stop;
    int ejected; /* 1: not yet */
    struct usb_stick_facts facts;
    struct usb_unit_facts units[16];
    struct usb_stick_counts counts;
    struct block_device *disks[16];
};

/* What is done with the transport of those that are started next; NULL: nothing. */
extern void (*rig_adjust)(struct usb_transport *transport);

/* Until it holds; fails after a while. */
#define wait_for(rig, what)                                                                        \
    do {                                                                                           \
        int64_t until = clock_milliseconds() + PATIENCE;                                           \
        pthread_mutex_lock(&(rig)->lock);                                                          \
        while (!(what) && clock_milliseconds() < until) {                                          \
            struct timespec at;                                                                    \
            clock_gettime(CLOCK_REALTIME, &at);                                                    \
            at.tv_sec++;                                                                           \
            pthread_cond_timedwait(&(rig)->changed, &(rig)->lock, &at);                            \
        }                                                                                          \
        bool holds = (what);                                                                       \
        pthread_mutex_unlock(&(rig)->lock);                                                        \
        if (!holds)                                                                                \
            fail_msg("%s: not within %d ms", #what, PATIENCE);                                     \
    } while (0)

/* options NULL: usual ones; faults: separated by spaces. */
struct rig *rig_start(const struct stick_options *options, const char *faults);
/* ... and its descriptors must be good. */
struct rig *rig_start_ready(const struct stick_options *options, const char *faults);
/* Waits until the unit is ready. */
struct block_device *rig_disk(struct rig *rig, unsigned unit);
struct usb_unit_facts rig_unit(struct rig *rig, unsigned unit);
struct usb_stick_counts rig_counts(struct rig *rig);
void rig_finish(struct rig *rig);

#endif
