/*
 * The process of one stick: it isolates itself, reads the stick, and does what is asked of it over
 * its socket (runtime-spec/usb.json). What is here is for the program cloche-usb.
 */
#ifndef SERVER_SERVER_H
#define SERVER_SERVER_H

#include <stdbool.h>
#include <stdint.h>
#include <sched.h>
#include <sys/types.h>

#include <base/error.h>

enum { SERVER_MEMORY = 256 << 20 }; /* bytes */

enum server_kind { SERVER_DEVICE, SERVER_USBIP, SERVER_IMAGE };

struct server_options {
    int listen; /* a listening Unix stream socket */
    enum server_kind kind;
    int fd;                /* of the device, the connection to the USB/IP server, or the image */
    const char *bus_id;    /* USB/IP */
    uint8_t configuration; /* of server_isolate(): that the kernel has set; of a device */
    uint32_t sector_size;  /* of an image, bytes */
    bool read_only;        /* nothing is ever written, whatever is asked for */
    bool locked_in;        /* the media may be, by a process that was killed; of a stick */
    uid_t uid;
    gid_t gid;
    int real_time; /* priority of SCHED_FIFO; 0: none */
    bool has_cpus;
    cpu_set_t cpus;  /* the threads stay on these */
    uint64_t memory; /* bytes of data; more is not there to be had */
    uint64_t kept;   /* of these, of files, folders and checks; 0: half of them */
    int help;        /* of server_isolate(): to the process that waits; of a device */
};

/* How a process ends. */
enum server_end {
    SERVER_ENDED = 0, /* it was asked to */
    SERVER_FAILED = 1,
    SERVER_GONE = 3, /* the stick was pulled out, or given up */
};

/* Isolates this process as jail.c says; returns in a child of the one that called, which waits for
 * it and ends as it ends. The descriptors of the options are others afterwards, and all further
 * ones but 0 to 2 are closed. There is one thread, root. -EPERM: what the options ask for is not
 * allowed.
 */
int server_isolate(struct server_options *options, struct error *err);

/* Serves until the end; then the process must end, since threads may be left. */
enum server_end server_run(const struct server_options *options);

#endif
