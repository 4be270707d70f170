/*
 * A mounted volume: the file system of a medium, by an ops table for each kind (FAT12, FAT16 and
 * FAT32 are one, exFAT is another). No kind lets anything of the other show.
 *
 * All bytes of the medium are hostile: whatever is read is checked before it is used, every walk
 * along a chain or folder is bounded by the volume's size, and damage makes the call fail with
 * -EUCLEAN, whose error names the place, and never the program. A volume on which damage was met
 * takes no more writes.
 *
 * Names are UTF-8 here, compared by the volume's rules (case, up-case table). Times are nanoseconds
 * since 1970 in UTC; volumes that keep local time are read by volume_options.minutes_east.
 *
 * Any number of threads may call; the volume locks for itself (many readers, one writer). Content
 * goes through volume_read() and volume_write*(), which see to it that a file is not cut meanwhile.
 */
#ifndef FILES_VOLUME_H
#define FILES_VOLUME_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <base/error.h>
#include <block/medium.h>

enum volume_kind { VOLUME_FAT12, VOLUME_FAT16, VOLUME_FAT32, VOLUME_EXFAT };

/* The longest name, in bytes of UTF-8: 255 units of UTF-16. */
#define VOLUME_NAME_MAX 765

struct volume_options {
    bool read_only;
    int minutes_east; /* of UTC, of times that are kept local: east is positive, -1440 to 1440 */
    const char
        *codepage; /* of short names without a long one: "cp437" (NULL), "cp850", "cp1252", ... */
    bool
        discard; /* what has become free is discarded when that is in place, where the device can */
};

enum node_type { NODE_FILE, NODE_FOLDER };

/* A file or folder that somebody holds. Its number is unique while it is held; one and the same
 * file has one node however often it is looked up. */
struct node;

struct node_facts {
    uint64_t number; /* the root's is 1 */
    enum node_type type;
    uint64_t size;      /* bytes; of a folder: those of its clusters */
    uint64_t allocated; /* bytes */
    int64_t created, modified,
        accessed; /* ns since 1970; what the format does not keep is that of modified */
    bool read_only, hidden, system, archive; /* attributes */
    uint32_t links;                          /* 0: removed, and held only */
};

/* Which members of node_facts node_set() takes. */
enum node_change {
    NODE_SIZE = 1 << 0,
    NODE_CREATED = 1 << 1,
    NODE_MODIFIED = 1 << 2,
    NODE_ACCESSED = 1 << 3,
    NODE_ATTRIBUTES = 1 << 4,
};

struct volume_facts {
    enum volume_kind kind;
    char label[48];        /* UTF-8, without the spaces at its end */
    uint64_t id;           /* the serial number */
    uint32_t cluster_size; /* bytes */
    uint64_t clusters, clusters_free;
    bool dirty; /* it was not unmounted by whoever had it last */
};

/* A run of a file's bytes on the medium. */
struct extent {
    uint64_t offset; /* on the medium, bytes; EXTENT_ZEROS: nothing is kept, they are zeros */
    uint64_t length; /* bytes */
};
#define EXTENT_ZEROS UINT64_MAX

/* An entry of a folder, while it is read. Returns false when there is no room for it: it is the
 * first one of the next call. cookie: where to go on after this entry. */
typedef bool (*volume_entry)(const char *name, uint64_t number, enum node_type type,
                             uint64_t cookie, void *data);

struct volume;

struct volume_ops {
    const char *name;   /* "fat", "exfat" */
    uint32_t time_step; /* ns, a power of ten: by less, times of change do not differ */

    /* Whether the first bytes are of this kind, by the boot sector alone. */
    bool (*probe)(const uint8_t *sector, size_t size);

    /* The medium outlives the volume. */
    int (*mount)(struct medium *medium, const struct volume_options *options,
                 struct volume **ret_volume, struct error *err);

    /* Marks it clean, syncs. No node may be held but the root. */
    int (*unmount)(struct volume *volume, struct error *err);

    int (*facts)(struct volume *volume, struct volume_facts *ret_facts, struct error *err);
    /* The same but for clusters_free, which needs all of the table: that is 0. */
    int (*identity)(struct volume *volume, struct volume_facts *ret_facts, struct error *err);

    /* Nodes. What is returned is held until node_drop() as many times. -ENOENT, -ENOTDIR,
     * -ENAMETOOLONG, -EINVAL (a name that the format cannot keep). */
    struct node *(*root)(struct volume *volume);
    int (*lookup)(struct volume *volume, struct node *folder, const char *name,
                  struct node **ret_node, struct error *err);
    /* How the entry is spelt that this name finds: in another case, or by its long name. */
    int (*spelling)(struct volume *volume, struct node *folder, const char *name,
                    char ret_name[VOLUME_NAME_MAX + 1], struct error *err);
    void (*node_hold)(struct volume *volume, struct node *node);
    void (*node_drop)(struct volume *volume, struct node *node, uint64_t times);
    int (*node_facts)(struct volume *volume, struct node *node, struct node_facts *ret_facts,
                      struct error *err);
    int (*node_set)(struct volume *volume, struct node *node, unsigned changes,
                    const struct node_facts *facts, struct error *err);

    /* From the entry after cookie (0: from the first) on; without "." and "..". */
    int (*read_folder)(struct volume *volume, struct node *folder, uint64_t cookie,
                       volume_entry entry, void *data, struct error *err);

    /* -EEXIST, -ENOSPC, -EROFS. */
    int (*create)(struct volume *volume, struct node *folder, const char *name, enum node_type type,
                  struct node **ret_node, struct error *err);
    int (*remove)(struct volume *volume, struct node *folder, const char *name, enum node_type type,
                  struct error *err); /* -ENOTEMPTY, -EISDIR, -ENOTDIR */

    /* replace: what has the new name is removed by it, else -EEXIST. A folder does not go below
     * itself
     * (-EINVAL). One update: after a power cut there is the old name or the new one. */
    int (*rename)(struct volume *volume, struct node *folder, const char *name,
                  struct node *new_folder, const char *new_name, bool replace, struct error *err);

    /* Where bytes [offset, offset + length) of a file are, up to `room` runs; those beyond the end,
     * or beyond what was reserved when that is more, are left out. Returns how many. */
    int (*map)(struct volume *volume, struct node *file, uint64_t offset, uint64_t length,
               struct extent *extents, size_t room, struct error *err);

    /* Makes room for a write at [offset, offset + length), and zeros from the end to offset where
     * the format has no holes. The size stays. -ENOSPC, -EFBIG: nothing has changed. */
    int (*reserve)(struct volume *volume, struct node *file, uint64_t offset, uint64_t length,
                   struct error *err);

    /* The content was written up to offset + length: size and times follow; dated: but for times,
     * which whoever writes says himself. */
    int (*wrote)(struct volume *volume, struct node *file, uint64_t offset, uint64_t length,
                 bool dated, struct error *err);

    /* What was reserved and not written is given back; nothing of the file is being written. */
    void (*unreserve)(struct volume *volume, struct node *file);

    int (*set_label)(struct volume *volume, const char *label, struct error *err);

    /* Nothing was changed for a while: until the next change, what is on the medium says that the
     * volume is not in use, so that other systems take it as it is when it is pulled out. */
    int (*rest)(struct volume *volume, struct error *err);

    /* A piece of what has become free and is to be discarded. False: there is no more, for now. */
    bool (*discard)(struct volume *volume);
};

/* Finds the kind by the medium's first sector and mounts. -EMEDIUMTYPE: none that we know. */
int volume_mount(struct medium *medium, const struct volume_options *options,
                 struct volume **ret_volume, struct error *err);

/* Called about once a second: medium_tick(), rest() when it is time, and some discards. */
int volume_tick(struct volume *volume, uint64_t now_ms, struct error *err);

/* Whether this first sector is that of a volume of a kind that we know. */
bool volume_is_known(const uint8_t *sector, size_t size);

/* Files that are read from their beginning on, by content.c: where each one is. What follows is
 * read ahead, in memory of the medium's. */
enum { VOLUME_STREAMS = 8 };
struct volume_stream {
    uint64_t number, at; /* the file's; where the next read would be */
    unsigned reads;      /* in order, so far */
    uint64_t expected;   /* up to here it is read ahead */
};
struct volume_streams {
    pthread_mutex_t lock;
    unsigned next; /* which one makes way */
    struct volume_stream items[VOLUME_STREAMS];
    /* Small files that are next to each other. Bytes of the medium. */
    unsigned small_reads;
    uint64_t small_end, small_expected;
};

/* Somebody who moves content of a file, or changes its size: content.c. */
enum content_what { CONTENT_READ, CONTENT_WRITE, CONTENT_CUT };
enum content_state { CONTENT_WAITS, CONTENT_TAKES_ROOM, CONTENT_MOVING };
struct content_move {
    struct content_move *next;
    struct node *file;
    enum content_what what;
    enum content_state state;
    uint64_t offset, size;
    bool broken; /* one before it failed */
    bool cleans; /* what was reserved goes with it */
    bool dated;  /* as of wrote(): to be set between begin and end of a write */
};

/* The first member of every kind's volume. */
struct volume {
    const struct volume_ops *ops;
    struct medium *medium;
    uint32_t cluster_size; /* bytes */
    struct volume_streams streams;
    pthread_mutex_t content_lock;
    pthread_cond_t content_moved;
    struct content_move *content; /* the list, first come first */
};
void volume_init(struct volume *volume, const struct volume_ops *ops, struct medium *medium);
void volume_finish(struct volume *volume);

/* Content through map, reserve and wrote. Returns how many bytes. Any number of threads may be at
 * one file: who reads does not see half of a write of 4 KiB that begins at such a number. */
int64_t volume_read(struct volume *volume, struct node *file, uint64_t offset, void *data,
                    size_t size, struct error *err);
int64_t volume_write(struct volume *volume, struct node *file, uint64_t offset, const void *data,
                     size_t size, struct error *err);

/* A write in parts. Several of a file may be under way together and end in any order; the file
 * grows in the order of its bytes, since what is before its end has been written. Begin takes room
 * for it, in the order in which it is called, and waits for those that touch a sector which this
 * one touches, and for whoever changes the file's size; the content is moved after that; end waits
 * for those before it in the file, and says that the content is there. r: how the content fared;
 * returned, where it is an error. What is behind a write that failed fails with -EIO. End is called
 * if begin returned 0. */
int volume_write_begin(struct volume *volume, struct content_move *write, struct node *file,
                       uint64_t offset, uint64_t size, struct error *err);
int volume_write_content(struct volume *volume, const struct content_move *write, const void *data,
                         struct error *err);
int volume_write_end(struct volume *volume, struct content_move *write, int r, struct error *err);

/* As begin, but -EAGAIN where it would wait for another one. Who has begun writes that have not
 * ended, waits for no other in between. */
int volume_write_try(struct volume *volume, struct content_move *write, struct node *file,
                     uint64_t offset, uint64_t size, struct error *err);

/* The content of several writes, of any files: what is next to each other on the medium goes there
 * at once. result and error: how each fared. */
struct content_piece {
    struct content_move *write;
    const void *data;
    int result;
    struct error error;
    uint64_t at, length; /* of content_gather.c: bytes on the medium */
};
enum { CONTENT_PIECES = 32, CONTENT_PIECE = 64 << 10 /* bytes of a write, at most */ };
void volume_write_pieces(struct volume *volume, struct content_piece *pieces, size_t count);

#endif
