/* What the kernel asks of a CUSE device (linux/fuse.h), and what it is answered. */
#ifndef DOORS_CUSE_TALK_H
#define DOORS_CUSE_TALK_H

#include <doors/cuse.h>

enum {
    CUSE_MOVE = 64 << 10,            /* bytes that one request moves at most */
    CUSE_MESSAGE = CUSE_MOVE + 4096, /* bytes of a message, both ways */
    CUSE_FILES = 64,                 /* that are open */
};

struct cuse_talk {
    struct block_device *medium;
    bool read_only;
    char name[CUSE_DOOR_NAME_MAX];
    bool has_begun; /* CUSE_INIT was answered */
    bool is_open[CUSE_FILES];
    uint64_t positions[CUSE_FILES]; /* bytes */
};

/* Bytes of the answer, at most CUSE_MESSAGE; 0: none is due. Waits for the medium. -EPROTO: this is
 * no message. */
ssize_t cuse_answer(struct cuse_talk *talk, const void *message, size_t size, void *answer,
                    struct error *err);

#endif
