/*
 * A mounted exFAT volume within: what exfat_*.c share. The format itself is in exfat_layout.h,
 * exfat_set.h and exfat_upcase.h.
 *
 *   exfat_runs.c    runs of a file's clusters, from the table
 *   exfat_space.c   the allocation bitmap, and which clusters may be given away
 *   exfat_chain.c   clusters that become a file's, or are its no more
 *   exfat_folder.c  entry sets of folders
 *   exfat_index.c   names of a folder by its index (folder_index.h), and room for entries
 *   exfat_node.c    files and folders that are held, their sets and times
 *   exfat_file.c    content: map, reserve, wrote, truncate
 *   exfat_change.c  create, rename
 *   exfat_leave.c   remove, and what a rename replaces
 *   exfat_journal.c the journal's file
 *   exfat_start.c   mount, the first write, unmount
 *   exfat.c         the operations, each with its lock
 *
 * Locks: volume->lock is held by every operation, to read or to write. A node's own lock guards
 * what readers find out and keep: its runs, and the index of a folder.
 *
 * What an update writes is prepared before medium_begin(): clusters are taken in memory, folders
 * grow by updates of their own, so that an update can only fail with the medium; memory follows
 * when it has ended.
 */
#ifndef FILES_EXFAT_H
#define FILES_EXFAT_H

#include <pthread.h>
#include <stdatomic.h>

#include <files/volume.h>

#include "discards.h"
#include "exfat_layout.h"
#include "exfat_set.h"
#include "kinds.h"
#include "nodes.h"

enum {
    EXFAT_FOLDER_MOST = 256 << 20, /* bytes: 7.4 */
    EXFAT_ENTRIES_MOST = EXFAT_FOLDER_MOST / EXFAT_ENTRY,
};
#define EXFAT_JOURNAL_NAME "CLOCHE.JNL"

/* Clusters that are next to each other, from cluster number `at` of the file on. */
struct exfat_run {
    uint32_t at, first, count;
};

struct exfat_runs {
    struct exfat_run *items; /* owned */
    size_t count, room;
    uint32_t clusters; /* of all */
};
void exfat_runs_add(struct exfat_runs *runs, uint32_t first, uint32_t count); /* merges */
void exfat_runs_cut(struct exfat_runs *runs, uint32_t clusters);              /* keeps that many */
void exfat_runs_finish(struct exfat_runs *runs);
const struct exfat_run *exfat_runs_find(const struct exfat_runs *runs, uint32_t at);
/* at < runs->clusters */
uint32_t exfat_runs_cluster(const struct exfat_runs *runs, uint32_t at);

struct folder_index;

/* An entry set and where it is. */
struct exfat_place {
    uint32_t position; /* of its first entry in its folder, in entries */
    unsigned count;
    uint64_t *offsets; /* owned: of each entry, bytes of the medium; NULL: nowhere */
};

struct exfat_node {
    struct node node; /* first */
    enum node_type type;
    struct exfat_node *parent; /* held; NULL: the root */
    struct exfat_place place;  /* not of the root */
    struct exfat_set set;      /* as it is on the medium, and of what is removed as it would be */
    bool removed;
    uint64_t freed_by;                    /* of what is removed: the update that did it */
    uint64_t reserved_from, reserved_end; /* bytes for which a write was announced */

    pthread_mutex_t lock;       /* the members below, where volume->lock is held to read */
    struct exfat_runs runs;     /* those of the medium, then those that are taken only */
    bool complete;              /* all of the medium's are there */
    uint32_t linked;            /* clusters that are the file's on the medium; of complete runs */
    struct folder_index *index; /* NULL: not built yet; exfat_index.c */
    uint64_t used;              /* when runs and index were, last; by the volume's clock */
};

/* Clusters that were freed on the medium and may not be given away yet. */
struct exfat_freed {
    uint32_t first, count;
    uint64_t update;
    bool folder;
};

struct exfat_volume {
    struct volume volume; /* first */
    struct exfat_layout layout;
    struct volume_options options;
    struct exfat_upcase *upcase;
    pthread_rwlock_t lock;
    struct nodes nodes;
    atomic_uint_fast64_t clock; /* of uses of nodes */
    uint64_t rested;            /* what it was when the volume rested */
    struct exfat_node *root;
    bool read_only, started;
    bool marked; /* as in use, on the medium */
    atomic_bool damaged;
    bool dirty_before; /* when it was mounted, and not by us */
    uint8_t percent;

    struct exfat_runs bitmap; /* where the allocation bitmap is */
    uint32_t upcase_first;
    uint64_t upcase_size;
    uint64_t label_offset;    /* of its entry; 0: there is none */
    uint64_t journal_place;   /* offset of its set; 0: there is none */
    struct exfat_set journal; /* its set */

    uint64_t *used;     /* a bit a cluster: not to be given away; NULL: not read yet */
    uint32_t free;      /* clusters that are free on the medium */
    uint32_t held;      /* of these, taken in memory */
    uint32_t next;      /* where to look for space */
    uint32_t in_pieces; /* clusters for which there is no large piece to be looked for */
    struct exfat_freed *freed;
    size_t freed_count, freed_room;
    struct discards discards; /* where they are wanted */
};

static inline struct medium *exfat_medium(const struct exfat_volume *volume)
{
    return volume->volume.medium;
}

static inline uint64_t exfat_clusters_for(const struct exfat_layout *layout, uint64_t bytes)
{
    return (bytes >> layout->cluster_shift) + ((bytes & (layout->cluster_size - 1)) != 0);
}

/* Damage: -EUCLEAN, and no writes from then on. */
int exfat_damage(struct exfat_volume *volume, struct error *err, const char *format, ...)
    _printf_(3, 4);

/* exfat_runs.c. The node's runs up to its cluster number `clusters`, or all there are. node->lock
 * is held, or volume->lock to write. */
int exfat_runs_load(struct exfat_volume *volume, struct exfat_node *node, uint64_t clusters,
                    struct error *err);
/* A chain of the table that is as long as it says: of the root folder (clusters: 0), the bitmap. */
int exfat_chain_load(struct exfat_volume *volume, uint32_t first, uint64_t clusters,
                     struct exfat_runs *runs, struct error *err);

/* exfat_space.c. volume->lock is held to write, and no update runs. */
int exfat_space_read(struct exfat_volume *volume, struct error *err);
/* Takes clusters in memory, behind `near` where it can (0: anywhere), and adds them to runs. */
int exfat_space_take(struct exfat_volume *volume, uint64_t want, uint32_t near,
                     struct exfat_runs *runs, struct error *err);
/* See volume_ops.discard. */
bool exfat_space_discard(struct exfat_volume *volume);
int exfat_space_contiguous(struct exfat_volume *volume, uint32_t want, uint32_t *ret_first);
/* Of what was taken and is in no bitmap. */
void exfat_space_give_back(struct exfat_volume *volume, const struct exfat_runs *runs,
                           uint32_t from);
/* Of what is free in the medium's bitmap since the update `update`. */
void exfat_space_freed(struct exfat_volume *volume, const struct exfat_runs *runs, uint32_t from,
                       uint32_t to, uint64_t update, bool folder);
/* Within an update: the medium's bitmap for clusters [from, to) of the runs. */
int exfat_space_mark(struct exfat_volume *volume, const struct exfat_runs *runs, uint32_t from,
                     uint32_t to, bool used, struct error *err);
/* Sectors of the bitmap and of the table that a run may touch. */
unsigned exfat_bitmap_sectors(const struct exfat_volume *volume, uint32_t clusters);
unsigned exfat_table_sectors(const struct exfat_volume *volume, uint32_t clusters);

/* Updates. exfat_finish() ends it, or takes it back when r < 0. */
int exfat_begin(struct exfat_volume *volume, unsigned sectors, struct error *err);
int exfat_finish(struct exfat_volume *volume, int r, struct error *err);

/* exfat_chain.c. The node's runs are complete. */

/* Clusters up to number `clusters` of the runs become the node's, and the set becomes `set` but for
 * its clusters; in several updates where one is not enough, of which the first ones say a smaller
 * size. */
int exfat_link(struct exfat_volume *volume, struct exfat_node *node, uint32_t clusters,
               const struct exfat_set *set, struct error *err);
/* On the medium the node keeps so many clusters only, and as many more as another update can free
 * by so many sectors; its runs stay. */
int exfat_shrink(struct exfat_volume *volume, struct exfat_node *node, uint32_t keep,
                 unsigned sectors, struct error *err);
/* The same, to the end, with the set that it has then. */
int exfat_unlink(struct exfat_volume *volume, struct exfat_node *node, uint32_t keep,
                 const struct exfat_set *set, struct error *err);
/* The first cluster from which on one update can free the rest by so many sectors. */
uint32_t exfat_frees_from(const struct exfat_volume *volume, const struct exfat_node *node,
                          unsigned sectors);
/* Those before number `to`, to which no set leads any more, become free on the medium; by several
 * updates where one is not enough: where the power goes meanwhile, the rest is lost until a check.
 */
int exfat_free_lost(struct exfat_volume *volume, const struct exfat_runs *runs, uint32_t to,
                    struct error *err);
unsigned exfat_free_sectors(const struct exfat_volume *volume, const struct exfat_runs *runs,
                            uint32_t from, uint32_t to);

/* exfat_folder.c. folder->lock is held, or volume->lock to write. */
struct exfat_entries {
    struct exfat_place place;
    struct exfat_set set;
    uint8_t raw[EXFAT_SET_READ * EXFAT_ENTRY];
};
/* Owned; without a place, and nothing else of it says anything: zeros for all of a set are more
 * work than reading one. */
struct exfat_entries *exfat_entries_create(void);
void exfat_place_finish(struct exfat_place *place);
/* Its entries as they are; written within an update. */
int exfat_place_read(struct exfat_volume *volume, const struct exfat_place *place, uint8_t *raw,
                     struct error *err);
int exfat_place_write(struct exfat_volume *volume, const struct exfat_place *place,
                      const uint8_t *raw, struct error *err);

/* The next set from *position on, which is moved behind it. 1; 0: no more. Owned: its place. */
int exfat_folder_next(struct exfat_volume *volume, struct exfat_node *folder, uint32_t *position,
                      struct exfat_entries *ret_entries, struct error *err);
/* Entries as they are: up to `count`. Returns how many there are before the folder's clusters end.
 */
int exfat_folder_read(struct exfat_volume *volume, struct exfat_node *folder, uint32_t position,
                      uint32_t count, uint8_t *raw, struct error *err);
int exfat_folder_offset(struct exfat_volume *volume, struct exfat_node *folder, uint32_t position,
                        uint64_t *ret_offset, struct error *err);
int exfat_folder_find(struct exfat_volume *volume, struct exfat_node *folder, const uint16_t *name,
                      unsigned length, struct exfat_entries *ret_entries, struct error *err);
int exfat_folder_is_empty(struct exfat_volume *volume, struct exfat_node *folder,
                          struct error *err);
/* Where `count` entries may go, for which the folder may grow. */
int exfat_folder_room(struct exfat_volume *volume, struct exfat_node *folder, unsigned count,
                      struct exfat_place *ret_place, struct error *err);
/* The same, but not where other entries are to be (NULL: nowhere). */
int exfat_folder_room_beside(struct exfat_volume *volume, struct exfat_node *folder, unsigned count,
                             const struct exfat_place *taken, struct exfat_place *ret_place,
                             struct error *err);
/* Within an update; the index follows by _added() and _removed() when it has ended. */
int exfat_folder_write(struct exfat_volume *volume, struct exfat_node *folder,
                       const struct exfat_place *place, const uint8_t *raw, struct error *err);
int exfat_folder_erase(struct exfat_volume *volume, const struct exfat_place *place,
                       struct error *err);
void exfat_folder_added(struct exfat_volume *volume, struct exfat_node *folder,
                        const struct exfat_place *place, const struct exfat_set *set);
void exfat_folder_removed(struct exfat_volume *volume, struct exfat_node *folder,
                          const struct exfat_place *place, const struct exfat_set *set);
/* Drops what was not used lately where all volumes keep too much; what was used last, which may be
 * all there is, only when `all`. With the lock to write, where nothing of the volume is under way.
 */
void exfat_nodes_shrink(struct exfat_volume *volume, bool all);

/* exfat_node.c */
struct exfat_node *exfat_node_create(struct exfat_node *parent, enum node_type type);
/* The node of a set that was read, held; its place is taken over. */
struct exfat_node *exfat_node_of(struct exfat_volume *volume, struct exfat_node *folder,
                                 struct exfat_entries *entries);
void exfat_node_free(struct exfat_node *node);
void exfat_node_drop(struct exfat_volume *volume, struct exfat_node *node, uint64_t times);
/* Within an update: its set on the medium becomes this one, but for its name. */
int exfat_node_write(struct exfat_volume *volume, const struct exfat_node *node,
                     const struct exfat_set *set, struct error *err);
unsigned exfat_set_sectors(const struct exfat_volume *volume, unsigned entries);
struct exfat_time exfat_time_from(const struct exfat_volume *volume, int64_t nanoseconds);
int64_t exfat_time_to(const struct exfat_volume *volume, struct exfat_time time);
/* Units of a name that may be made: -EINVAL, -ENAMETOOLONG. */
int exfat_name_from(const char *name, uint16_t units[static EXFAT_NAME_UNITS], struct error *err);

/* exfat_file.c */
int exfat_map(struct exfat_volume *volume, struct exfat_node *file, uint64_t offset,
              uint64_t length, struct extent *extents, size_t room, struct error *err);
/* 1: there is more to be made zeros; the lock may be let go before it is called again. */
int exfat_reserve(struct exfat_volume *volume, struct exfat_node *file, uint64_t offset,
                  uint64_t length, struct error *err);
int exfat_wrote(struct exfat_volume *volume, struct exfat_node *file, uint64_t end, bool dated,
                struct error *err);
/* What was taken for writes that did not come is given back. */
void exfat_unreserve(struct exfat_volume *volume, struct exfat_node *file);
/* The set's size is the new one; its other members are taken as they are. */
int exfat_truncate(struct exfat_volume *volume, struct exfat_node *file, struct exfat_set *set,
                   struct error *err);

/* exfat_change.c */
int exfat_create(struct exfat_volume *volume, struct exfat_node *folder, const char *name,
                 enum node_type type, struct exfat_node **ret_node, struct error *err);
int exfat_rename(struct exfat_volume *volume, struct exfat_node *folder, const char *name,
                 struct exfat_node *new_folder, const char *new_name, bool replace,
                 struct error *err);

/* exfat_leave.c */
int exfat_remove(struct exfat_volume *volume, struct exfat_node *folder, const char *name,
                 enum node_type type, struct error *err);
/* Frees what was parked to be removed when the power went. What cannot be freed is, the next
 * time. */
int exfat_remove_parked(struct exfat_volume *volume, struct error *err);

/* exfat_journal.c. Where it is, by its name: volume->journal_place. */
void exfat_journal_find(struct exfat_volume *volume);
/* From now on updates go through it; made, where there is none and there is room. */
int exfat_journal_use(struct exfat_volume *volume, struct error *err);

/* exfat_start.c */
int exfat_mount(struct medium *medium, const struct volume_options *options,
                struct volume **ret_volume, struct error *err);
int exfat_unmount(struct volume *volume, struct error *err);
int exfat_start_writing(struct exfat_volume *volume, struct error *err);
/* Marks it as not in use until the next change; the lock is held to write. */
int exfat_rest(struct exfat_volume *volume, struct error *err);

#endif
