/*
 * A volume as a file system of the kernel, over a /dev/fuse descriptor that somebody else has
 * mounted or is about to mount: with fsopen() and the options fd=, rootmode=040000, user_id=,
 * group_id=, allow_other, default_permissions. Nothing is mounted or executed here, and nothing is
 * opened, so that a door can be opened in a jail: it needs threads, epoll, eventfd, read, write.
 *
 * The door answers with threads of its own. A call on it from one of them (from `ended`) is only
 * allowed where it says so.
 *
 * Whoever mounts should tell the kernel how much of it to have under way, in
 * /sys/class/bdi/MAJOR:MINOR (st_dev of the mount). read_ahead_kb: FUSE_DOOR_READ_AHEAD / 1024; by
 * default it is 128 KiB. max_ratio: FUSE_DOOR_DIRTY_MOST, and then min_ratio:
 * FUSE_DOOR_DIRTY_LEAST; by default FUSE may have a hundredth of what may wait to be written, on a
 * machine of 1 GiB less than two requests, and whoever writes is put to sleep at every turn. Nor
 * should it have much more: the kernel of FUSE begins to write when three quarters of it wait, so
 * that more of it makes the device begin later and leaves more to do when the file is synced.
 */
#ifndef DOORS_FUSE_H
#define DOORS_FUSE_H

#include <sys/types.h>

#include <doors/served.h>

enum {
    FUSE_DOOR_THREADS = 4,
    FUSE_DOOR_REQUEST = 1 << 20,    /* bytes that one request moves at most */
    FUSE_DOOR_READ_AHEAD = 4 << 20, /* bytes */
    FUSE_DOOR_DIRTY_MOST = 7,       /* of a hundred */
    FUSE_DOOR_DIRTY_LEAST = 3,
};

struct fuse_door;

enum fuse_door_end {
    FUSE_DOOR_UNMOUNTED, /* or the connection was aborted: nobody asks any more */
    FUSE_DOOR_GONE,      /* the device is gone; until it is closed the door answers ENODEV */
    FUSE_DOOR_FAILED,    /* the descriptor is no mounted /dev/fuse, or the kernel is too old */
};
const char *fuse_door_end_name(enum fuse_door_end end); /* "unmounted", "gone", "failed" */

/*
 * What programs write is gathered by the kernel (write-back): small writes cost little, the device
 * is kept busy, and errors (ENOSPC, too) come when the file is closed or synced. So where the door
 * can be the only one of its volume when it is opened; other doors write through, and each hears of
 * what the others change: at once but for files that a program holds open.
 */

/* 0 where nothing else is said: the default, or no limit. */
struct fuse_door_options {
    bool read_only;
    uid_t uid; /* to whom everything belongs */
    gid_t gid;
    mode_t file_mode, folder_mode;  /* permissions: 0644, 0755. Attribute read-only: without w */
    uint64_t bytes_per_second;      /* read and written together */
    uint64_t operations_per_second; /* requests of every kind but closing and forgetting */
    uint64_t size_limit; /* bytes that may be written through this door in all: then ENOSPC */
    bool write_through;  /* every write(2) is a request, and fails at once when there is no room */
    unsigned threads;    /* FUSE_DOOR_THREADS */

    /* Once, on one of the door's threads, not within fuse_door_open(); message: one line for
     * people, borrowed. Not called when the door is closed before. May call fuse_door_counts()
     * only: somebody else closes. NULL: nobody listens. */
    void (*ended)(struct fuse_door *door, enum fuse_door_end end, const char *message, void *data);
    void *data;
};

struct fuse_door_counts {
    uint64_t requests, bytes_read, bytes_written;
    uint64_t failed;  /* requests that ended with EIO or ENODEV */
    uint64_t delayed; /* requests that a limit held up */
};

/* fd is taken over, also on failure; it may be mounted before or after. served outlives the door.
 * Does not wait for the kernel. -EINVAL: options that cannot be; -EAGAIN: no threads. */
int fuse_door_open(struct served_volume *served, int fd, const struct fuse_door_options *options,
                   struct fuse_door **ret_door, struct error *err);

void fuse_door_counts(struct fuse_door *door, struct fuse_door_counts *ret_counts);

/* Requests under way are done, everything else that is asked of the mount fails with ENOTCONN from
 * now on; no thread is left and nothing of the volume is held. What was written is not synced. NULL
 * is fine. Not on a thread of the door. */
void fuse_door_close(struct fuse_door *door);

#endif
