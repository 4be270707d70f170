/*
 * The child's side of look.c: what it is asked on its standard input, in texts that end with a NUL
 * (as arguments others would see them, and the options of volumes have passwords), and what it
 * writes.
 */
#ifndef ENGINE_LOOK_CHILD_H
#define ENGINE_LOOK_CHILD_H

#include <stdint.h>

#define LOOK_OPTION ENGINE_LOOK_OPTION
/* Before a path. */
#define LOOK_FOLDER "folder:"       /* make it when it is missing */
#define LOOK_SOURCE "source:"       /* must be there */
#define LOOK_SHARED "shared:"       /* must lie on a mount that is shared */
#define LOOK_SLAVE "slave:"         /* on one that is shared, or a slave of one */
#define LOOK_VOLUME "volume:"       /* a volume_mount_request(): mount it, unless it is */
#define LOOK_DEVICE "device:"       /* a device, or a folder with devices */
#define LOOK_ALL_DEVICES "devices:" /* as privileged containers have them */

enum {
    LOOK_EXIT_ASKED_WRONG = 2, /* something is not there */
    LOOK_REQUESTS_MAX = 16 * 1024 * 1024,
    LOOK_TIMEOUT_SECONDS = 10, /* for a path: SIGALRM ends the child */
};

/* A device that was found; written as text that ends with a NUL. */
struct look_line {
    unsigned subject; /* number of the request */
    char type;
    uint32_t major, minor, mode, uid, gid;
    const char *path;
};

/* Number of the mount that a path lies on; -1: not known. */
int look_mount_of(const char *path);

int look_line_parse(const char *text, struct look_line *ret);

#endif
