/*
 * FAT12, FAT16 and FAT32 within: what fat_*.c share.
 *
 *   fat_layout.c   where things are, from the boot sector
 *   fat_table.c    the tables: entries, chains, runs of a file's clusters
 *   fat_space.c    which clusters are free, in memory
 *   fat_name.c     short names, and what names may be
 *   fat_folder.c   entries of folders: reading, making
 *   fat_index.c    names of a folder by its index (folder_index.h), and room for entries
 *   fat_start.c    mount, the first write, unmount
 *   fat_file.c     size and content of files
 *   fat_names.c    create, rename
 *   fat_leave.c    remove, and what a rename replaces
 *   fat_node.c     nodes: entries that are held
 *   fat.c          the operations, each with its lock
 *
 * Locks: volume->lock is held by every operation, to read or to write. A node's own lock guards
 * what readers find out and keep: its runs, and the index of a folder.
 *
 * What an update writes is prepared before medium_begin(): clusters are taken in memory, folders
 * grow by updates of their own, so that an update can only fail with the medium.
 */
#ifndef FILES_FAT_H
#define FILES_FAT_H

#include <pthread.h>
#include <stdatomic.h>

#include <files/volume.h>

#include "characters.h"
#include "discards.h"
#include "nodes.h"

enum {
    FAT_FIRST = 2, /* the first cluster's number */
    FAT_ENTRY = 32,
    FAT_SLOTS_MOST = 65536, /* of a folder: the specification's 2 MiB */
    FAT_LONG_UNITS = 13,    /* of a name in one entry */
    FAT_LONG_MOST = 20,     /* entries of a name */

    FAT_READ_ONLY = 0x01,
    FAT_HIDDEN = 0x02,
    FAT_SYSTEM = 0x04,
    FAT_LABEL = 0x08,
    FAT_FOLDER = 0x10,
    FAT_ARCHIVE = 0x20,
    FAT_LONG = 0x0F,
    FAT_ATTRIBUTES = 0x3F,

    FAT_DELETED = 0xE5,

    /* Where things are in an entry. */
    ENTRY_ATTRIBUTES = 11,
    ENTRY_CASE = 12,
    ENTRY_CREATED_HUNDREDTHS = 13,
    ENTRY_CREATED_TIME = 14,
    ENTRY_CREATED_DATE = 16,
    ENTRY_ACCESSED_DATE = 18,
    ENTRY_FIRST_HIGH = 20,
    ENTRY_TIME = 22,
    ENTRY_DATE = 24,
    ENTRY_FIRST_LOW = 26,
    ENTRY_SIZE = 28,
};
#define FAT_JOURNAL "CLOCHE.JNL"
#define FAT_JOURNAL_SHORT "CLOCHE  JNL"
#define FAT_SIZE_MOST UINT32_MAX /* bytes of a file */

/* What an entry of the table says. */
#define TABLE_FREE 0u
#define TABLE_BAD (UINT32_MAX - 1)
#define TABLE_END UINT32_MAX

struct fat_layout {
    enum volume_kind kind;
    uint32_t sector_size, cluster_size; /* bytes */
    uint64_t size;                      /* bytes of the volume, as the boot sector says */
    uint64_t table_offset, table_size;  /* bytes; of one table */
    unsigned tables, active;
    bool mirrored;         /* all tables are the same; else the active one counts */
    uint64_t root_offset;  /* FAT12, FAT16 */
    uint32_t root_slots;   /* FAT12, FAT16 */
    uint32_t root_cluster; /* FAT32 */
    uint64_t data_offset;
    uint32_t clusters;                   /* numbers 2 to clusters + 1 */
    uint64_t info_offset, backup_offset; /* FAT32; 0: there is none */
    uint32_t flags_offset;               /* of the byte whose bit 0 says dirty */
    uint32_t id;
    uint8_t label[11], media;
    uint32_t label_offset; /* of the one in the boot sector; 0: it has none */
    bool dirty;            /* by the boot sector */
};

int fat_layout_read(const uint8_t *sector, uint64_t medium_size, struct fat_layout *ret,
                    struct error *err);
bool fat_probe(const uint8_t *sector, size_t size);

/* Clusters that are next to each other, from cluster number `at` of the file on. */
struct run {
    uint32_t at, first, count;
};

struct runs {
    struct run *items; /* owned */
    size_t count, room;
    uint32_t clusters; /* of all */
};
void runs_add(struct runs *runs, uint32_t first, uint32_t count); /* merges with the last one */
void runs_cut(struct runs *runs, uint32_t clusters);              /* keeps that many */
/* Whether there is memory for one more. -ENOMEM. */
int runs_check_room(const struct runs *runs, struct error *err);
void runs_finish(struct runs *runs);
const struct run *runs_find(const struct runs *runs, uint32_t at); /* at < clusters */

struct folder_index;

struct fat_node {
    struct node node; /* first */
    enum node_type type;
    uint64_t entry_offset; /* of its short entry on the medium; 0: it has none */
    uint8_t entry[FAT_ENTRY];
    uint32_t size;         /* bytes, of files */
    uint64_t reserved_end; /* bytes up to which writes were announced */
    bool removed;
    bool stays; /* of what is removed: its clusters are not free on the medium */

    pthread_mutex_t lock; /* the members below, where volume->lock is held to read */
    uint32_t first;       /* cluster; 0: none, or the fixed root */
    struct runs runs;
    bool complete;              /* runs are all there are */
    uint32_t linked;            /* the first so many clusters are in the table; of complete runs */
    struct folder_index *index; /* NULL: not built yet; fat_index.c */
    uint64_t used;              /* when runs and index were, last; by the volume's clock */
};

/* Clusters that were freed on the medium and may not be given away yet. */
struct freed {
    uint32_t first, count;
    uint64_t update;
    bool folder;
};

struct fat_volume {
    struct volume volume; /* first */
    struct fat_layout layout;
    struct volume_options options;
    const struct code_page *code_page;
    pthread_rwlock_t lock;
    struct nodes nodes;
    atomic_uint_fast64_t clock; /* of uses of nodes */
    uint64_t rested;            /* what it was when the volume rested */
    struct fat_node *root;
    bool read_only, started;
    bool marked; /* as in use, on the medium */
    atomic_bool damaged;
    bool was_dirty; /* when it was mounted */
    bool ours;      /* ... by us, and the journal was believed */

    uint64_t journal_entry; /* offset of its entry; 0: there is none */
    uint32_t journal_first, journal_size;

    uint64_t *used;     /* a bit a cluster: not to be given away; NULL: not counted yet */
    uint32_t free;      /* clusters that are free by the table */
    uint32_t held;      /* of these, taken in memory */
    uint32_t next;      /* where to look for space */
    uint32_t in_pieces; /* clusters for which there is no large piece to be looked for */
    struct freed *freed;
    size_t freed_count, freed_room;
    struct discards discards; /* where they are wanted */
};

static inline struct medium *fat_medium(const struct fat_volume *volume)
{
    return volume->volume.medium;
}

static inline bool fat_is_cluster(const struct fat_layout *layout, uint32_t cluster)
{
    return cluster >= FAT_FIRST && cluster - FAT_FIRST < layout->clusters;
}

static inline uint64_t fat_cluster_offset(const struct fat_layout *layout, uint32_t cluster)
{
    return layout->data_offset + (uint64_t)(cluster - FAT_FIRST) * layout->cluster_size;
}

static inline uint32_t fat_clusters_of(const struct fat_layout *layout, uint64_t bytes)
{
    return (uint32_t)((bytes + layout->cluster_size - 1) / layout->cluster_size);
}

/* Damage: -EUCLEAN, and no writes from then on. */
int fat_damage(struct fat_volume *volume, struct error *err, const char *format, ...)
    _printf_(3, 4);

/* fat_table.c. Entries as TABLE_* or the next cluster; anything else is damage. */
int fat_table_get(struct fat_volume *volume, uint32_t cluster, uint32_t *ret_next,
                  struct error *err);
int fat_table_raw(struct medium *medium, const struct fat_layout *layout, uint32_t cluster,
                  uint32_t *ret_value, struct error *err);
/* Of clusters one after the other, at most FAT_WORDS of them: what their entries mean. */
enum { FAT_WORDS = 1024 };
int fat_table_meanings(struct medium *medium, const struct fat_layout *layout, uint32_t first,
                       uint32_t count, uint32_t *ret_meanings, struct error *err);
uint32_t fat_table_meaning(const struct fat_layout *layout, uint32_t value);
uint32_t fat_table_word(const struct fat_layout *layout, uint32_t meaning);

uint64_t fat_table_start(const struct fat_layout *layout, unsigned table);

/* Within an update. Of count clusters each leads to the next, the last one to `last`. */
int fat_table_link(struct medium *medium, const struct fat_layout *layout, uint32_t first,
                   uint32_t count, uint32_t last, struct error *err);
int fat_table_fill(struct medium *medium, const struct fat_layout *layout, uint32_t first,
                   uint32_t count, uint32_t meaning, struct error *err);
unsigned fat_table_sectors(const struct fat_volume *volume, uint32_t first, uint32_t count);
int fat_table_link_runs(struct fat_volume *volume, const struct runs *runs, uint32_t from,
                        uint32_t to, bool ends, struct error *err);

/* The node's runs up to cluster number `clusters` of it, or all. Damage: a loop, a free, bad or
 * impossible cluster. node->lock is held. */
int fat_runs_load(struct fat_volume *volume, struct fat_node *node, uint32_t clusters,
                  struct error *err);

/* fat_space.c. volume->lock is held to write, and no update runs. */
int fat_space_count(struct fat_volume *volume, struct error *err);
int fat_space_take(struct fat_volume *volume, uint32_t want, uint32_t near, struct runs *runs,
                   struct error *err);
/* See volume_ops.discard. */
bool fat_space_discard(struct fat_volume *volume);
int fat_space_contiguous(struct fat_volume *volume, uint32_t want, uint32_t *ret_first);
void fat_space_give_back(struct fat_volume *volume, const struct runs *runs, uint32_t from);
/* Of what is in no table any more since the update `update`. */
void fat_space_freed(struct fat_volume *volume, const struct runs *runs, uint32_t from,
                     uint32_t count, uint64_t update, bool folder);

/* Updates: room for the info sector is added. fat_finish() ends it, or takes it back when r < 0. */
int fat_begin(struct fat_volume *volume, unsigned sectors, struct error *err);
int fat_finish(struct fat_volume *volume, int r, struct error *err);

/* fat_name.c */
struct fat_short {
    uint8_t name[11];
    uint8_t flags;  /* ENTRY_CASE */
    bool is_enough; /* no long name is needed */
};
int fat_name_check(const char *name, uint16_t units[static UNITS_MAX], struct error *err);
bool fat_name_may_be_shown(const uint16_t *units, unsigned length);
unsigned fat_short_units(const struct fat_volume *volume, const uint8_t *entry, uint16_t *ret);
uint8_t fat_short_sum(const uint8_t *name);
void fat_short_make(const struct fat_volume *volume, const uint16_t *units, unsigned length,
                    struct fat_short *ret);
/* The next one to try where others have the name. tries: from 1 on. */
void fat_short_number(struct fat_short *name, const uint16_t *units, unsigned length,
                      unsigned tries);
int fat_label_make(const struct code_page *page, const char *label, uint8_t ret[static 11],
                   struct error *err);
void fat_label_text(const struct code_page *page, const uint8_t label[static 11], char *ret,
                    size_t size);

/* fat_folder.c. folder->lock is held, or volume->lock to write. */
struct fat_entry {
    uint32_t first, slot; /* of its first long entry, and of the short one */
    uint64_t offset;      /* of the short one on the medium */
    uint8_t raw[FAT_ENTRY];
    uint16_t name[UNITS_MAX];
    unsigned length;
    bool has_long;
};
static inline uint32_t fat_entry_first(const struct fat_layout *layout, const uint8_t *raw)
{
    uint32_t low = (uint32_t)(raw[ENTRY_FIRST_LOW] | raw[ENTRY_FIRST_LOW + 1] << 8);
    uint32_t high = (uint32_t)(raw[ENTRY_FIRST_HIGH] | raw[ENTRY_FIRST_HIGH + 1] << 8);
    return layout->kind == VOLUME_FAT32 ? low | (high & 0x0FFF) << 16 : low;
}
void fat_entry_set_first(const struct fat_layout *layout, uint8_t *raw, uint32_t first);

/* Of FAT12 and FAT16: it has no clusters. */
bool fat_is_fixed_root(const struct fat_volume *volume, const struct fat_node *folder);
static inline uint32_t fat_slots_of_cluster(const struct fat_volume *volume)
{
    return volume->layout.cluster_size / FAT_ENTRY;
}
/* Where a slot is on the medium. 1; 0: beyond the folder's end. */
int fat_slot_offset(struct fat_volume *volume, struct fat_node *folder, uint32_t slot,
                    uint64_t *ret_offset, struct error *err);
/* One slot. 0: beyond the folder's end. */
int fat_slot_read(struct fat_volume *volume, struct fat_node *folder, uint32_t slot, uint8_t *raw,
                  uint64_t *ret_offset, struct error *err);

/* A long name while its parts arrive. */
struct fat_assembly {
    unsigned next; /* the order of the part that must come; 0: the short entry */
    bool begun;
    uint8_t sum;
    uint32_t first;
};
/* Slots one after the other, from those that are zeros in assembly on. True: this one ends a
 * file's; then entry is complete but for its offset. */
bool fat_take_slot(struct fat_volume *volume, struct fat_assembly *assembly, uint32_t slot,
                   const uint8_t *raw, struct fat_entry *entry);

/* The next file or folder from *slot on, which is moved behind it. 1, 0: no more. */
int fat_folder_next(struct fat_volume *volume, struct fat_node *folder, uint32_t *slot,
                    struct fat_entry *ret_entry, struct error *err);
int fat_folder_find(struct fat_volume *volume, struct fat_node *folder, const uint16_t *name,
                    unsigned length, struct fat_entry *ret_entry, struct error *err);
/* Whether an entry may be called so: 1, by chance also where none is; 0. Nothing is read. */
int fat_folder_may_have(struct fat_volume *volume, struct fat_node *folder, const uint16_t *units,
                        unsigned length, struct error *err);
int fat_folder_is_empty(struct fat_volume *volume, struct fat_node *folder, struct error *err);
/* Drops what was not used lately where all volumes keep too much; what was used last, which may be
 * all there is, only when `all`. With the lock to write, where nothing of the volume is under way.
 */
void fat_nodes_shrink(struct fat_volume *volume, bool all);

/* What a new entry will be: where, and its bytes. */
struct fat_new_entry {
    uint32_t first, count; /* slots */
    bool ends;             /* the slot behind it becomes the folder's end */
    uint8_t raw[FAT_LONG_MOST + 1][FAT_ENTRY];
    uint16_t name[UNITS_MAX];
    unsigned length;
};
/* Finds a short name and room, for which the folder may grow. */
int fat_folder_prepare(struct fat_volume *volume, struct fat_node *folder, const uint16_t *name,
                       unsigned length, struct fat_new_entry *ret, struct error *err);
/* The same, but not in slots that are to be used for something else. */
int fat_folder_room_beside(struct fat_volume *volume, struct fat_node *folder, uint32_t count,
                           uint32_t taken, uint32_t taken_count, uint32_t *ret_first,
                           struct error *err);
int fat_folder_room(struct fat_volume *volume, struct fat_node *folder, uint32_t count,
                    uint32_t *ret_first, struct error *err);
/* Within an update; the index follows by fat_folder_added() and _removed() when it has ended. */
int fat_folder_write(struct fat_volume *volume, struct fat_node *folder,
                     const struct fat_new_entry *entry, uint64_t *ret_offset, struct error *err);
int fat_folder_erase(struct fat_volume *volume, struct fat_node *folder,
                     const struct fat_entry *entry, struct error *err);
void fat_folder_added(struct fat_volume *volume, struct fat_node *folder,
                      const struct fat_new_entry *entry);
void fat_folder_removed(struct fat_volume *volume, struct fat_node *folder,
                        const struct fat_entry *entry);

/* fat_start.c */
int fat_mount(struct medium *medium, const struct volume_options *options,
              struct volume **ret_volume, struct error *err);
int fat_unmount(struct volume *volume, struct error *err);
int fat_start_writing(struct fat_volume *volume, struct error *err);
/* Marks it as not in use until the next change; volume->lock is held to write. */
int fat_rest(struct fat_volume *volume, struct error *err);
/* Starting for a repair: neither a journal is made, nor is it marked as in use. */
int fat_start_repair(struct fat_volume *volume, struct error *err);
int fat_find_label(struct fat_volume *volume, uint32_t *ret_slot, uint8_t *raw,
                   uint64_t *ret_offset, struct error *err);

/* fat_node.c */
int fat_node_of(struct fat_volume *volume, const struct fat_entry *entry, struct fat_node **ret,
                struct error *err);
struct fat_node *fat_node_create(uint64_t offset, const uint8_t *raw,
                                 const struct fat_layout *layout);
void fat_node_free(struct fat_node *node);
void fat_node_drop(struct fat_volume *volume, struct fat_node *node, uint64_t times);
int64_t fat_entry_modified(const uint8_t *raw, int minutes_east);
void fat_entry_set_modified(uint8_t *raw, int64_t when, int minutes_east);
int fat_entry_write(struct fat_volume *volume, const struct fat_node *node, struct error *err);

/* fat_file.c */
int fat_map(struct fat_volume *volume, struct fat_node *file, uint64_t offset, uint64_t length,
            struct extent *extents, size_t room, struct error *err);
/* 1: there is more to be made zeros; the lock may be let go before it is called again. */
int fat_reserve(struct fat_volume *volume, struct fat_node *file, uint64_t offset, uint64_t length,
                struct error *err);
/* What was taken for writes that did not come is given back. */
void fat_unreserve(struct fat_volume *volume, struct fat_node *file);
int fat_wrote(struct fat_volume *volume, struct fat_node *file, uint64_t end, bool dated,
              struct error *err);
/* 1: as fat_reserve(). What was reserved is given back before it is called for the first time. */
int fat_truncate(struct fat_volume *volume, struct fat_node *file, uint64_t size,
                 struct error *err);
/* Whether one update can free all of its clusters. */
bool fat_frees_at_once(struct fat_volume *volume, const struct fat_node *node,
                       unsigned *ret_sectors);
/* Frees so much of the chain, from its end on, that the rest can be freed by the update that
 * removes the entry, where it has one: *ret_left clusters. In memory the node keeps them all. All
 * of its runs are loaded. */
int fat_detach(struct fat_volume *volume, struct fat_node *node, uint32_t *ret_left,
               struct error *err);
/* Within an update. */
int fat_free_clusters(struct fat_volume *volume, struct fat_node *node, uint32_t from, uint32_t to,
                      struct error *err);

/* Sectors that a table's change for one chain may take within an update that does other things. */
enum { FAT_OTHER_SECTORS = 24 };
unsigned fat_table_most(const struct fat_volume *volume);

#endif
