/*
 * A FUSE door within: what fuse_*.c share.
 *
 *   fuse.c          open, the threads, close
 *   fuse_nodes.c    what the kernel holds, by the volume's nodes
 *   fuse_names.c    requests about names: lookup, create, remove, rename, reading folders
 *   fuse_content.c  requests about a file: attributes, reading, writing
 *   fuse_caches.c   what the kernel must forget
 */
#ifndef DOORS_FUSE_INTERNAL_H
#define DOORS_FUSE_INTERNAL_H

#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>

#include <stdatomic.h>

#include <doors/fuse.h>

#include "arrivals.h"
#include "rate.h"
#include "served_internal.h"

/* Seconds that the kernel may believe what it was told. Whatever changes, changes through it, or it
 * is told to forget. */
#define DOOR_BELIEF 86400.0

/* A node that the kernel knows; its number for the kernel is its address, but that of the root. */
struct door_node {
    struct node *node; /* held once */
    enum node_type type;
    uint64_t lookups;     /* that the kernel has not forgotten */
    unsigned stale;       /* names that led to it, which the kernel was not told to forget yet */
    unsigned kept;        /* its number is needed: it is to be told of the file's size */
    bool longer;          /* ... with all that the kernel knows */
    bool suspect;         /* ... and whoever asks for it may have found it by one of those */
    int64_t settled;      /* ms: when the kernel was told to forget the last of them */
    atomic_bool misspelt; /* the kernel has looked it up by another spelling, too */
    bool spared;          /* the kernel was asked to forget it, or is to be */
    fuse_ino_t folder;    /* where the kernel found it last, and by which name */
    char *name;           /* owned; NULL: the root */
    struct door_node *next;
};

struct door_nodes {
    pthread_mutex_t lock;
    pthread_cond_t settled;
    struct door_node **buckets;
    size_t room, count;
    size_t hand; /* the bucket of which the kernel is asked to forget the nodes next */
    struct door_node root;
};

/* Doors know so many nodes in all, a fair part of them each, before their kernels are asked to
 * forget some; and never more than twice as many. */
enum { DOOR_NODES = 32 << 10, DOOR_NODES_FAIR = DOOR_NODES / 32 };
/* What kernels are still to be told, of each door, is so much at most. */
enum { DOOR_FORGOTTEN = 4096, DOOR_FORGOTTEN_BUCKETS = 256 };

/* Something that the kernel must forget. */
struct forgotten {
    struct forgotten *next, *same; /* of a bucket */
    fuse_ino_t ino;
    struct door_node *stale;  /* its count goes down then; NULL: nobody's */
    struct door_node *longer; /* kept: how long it is, is told in place of that; or NULL */
    char name[];              /* in the folder `ino`; "": attributes and content of `ino` */
};

struct fuse_door {
    struct neighbour neighbour; /* first */
    struct served_volume *served;
    struct volume *volume;
    struct fuse_door_options options;
    struct fuse_session *session;
    struct door_nodes nodes;
    struct rate bytes, operations;

    int wake;        /* eventfd, readable once the threads are to end */
    int work;        /* eventfd, counts what the kernel must forget */
    bool write_back; /* the kernel gathers what is written, and knows the sizes of files best */
    int poll;        /* epoll: of the thread that has the turn */
    pthread_mutex_t turn; /* to read requests; a write keeps it until its place is taken */
    struct arrivals arrivals;
    uint8_t *memory;        /* of all threads, one behind the other */
    atomic_bool many_large; /* a large write was the last one: the turn is given away before it is
                               read, so that the kernel can copy several at once */
    atomic_bool ending, quiet, gone, told, warned;
    pthread_t *threads;
    unsigned thread_count;
    atomic_uint threads_begun;

    pthread_mutex_t forget_lock, forgetting; /* of the list; of the one who tells the kernel */
    struct forgotten *forget, **forget_end;
    struct forgotten *forget_buckets[DOOR_FORGOTTEN_BUCKETS];
    size_t forget_count;
    bool forget_all; /* all that it knows, since there was too much */

    _Atomic uint64_t requests, bytes_read, bytes_written, failed, delayed;
    _Atomic uint64_t used; /* of options.size_limit */
};

/* A WRITE that was read. */
struct door_write {
    struct fuse_buf buffer;
    const void *data;
    struct content_move move; /* has its room, if result is 0; stays where it is */
    int result;
    struct error error;
    bool moved; /* its content is there */
};

/* A thread of a door, and its memory: a request, whose content begins at a page. */
struct door_thread {
    struct fuse_door *door;
    struct arrival *arrival;
    bool has_turn;
    uint8_t *memory, *content;
    struct door_write writes[CONTENT_PIECES];   /* small ones, answered together */
    struct door_write *ordered[CONTENT_PIECES]; /* ... in this order */
    unsigned write_count;
    struct door_write *write; /* the one that is answered */
};
extern _Thread_local struct door_thread *door_self;

static inline struct fuse_door *door_of(fuse_req_t request)
{
    return fuse_req_userdata(request);
}

static inline struct door_node *door_node_of(struct fuse_door *door, fuse_ino_t ino)
{
    return ino == FUSE_ROOT_ID ? &door->nodes.root : (struct door_node *)ino;
}

static inline fuse_ino_t door_ino(const struct fuse_door *door, const struct door_node *node)
{
    return node == &door->nodes.root ? FUSE_ROOT_ID : (fuse_ino_t)(uintptr_t)node;
}

/* fuse.c */
void door_ended(struct fuse_door *door, enum fuse_door_end end, const char *format, ...)
    _printf_(3, 4);
/* Waits as the limit says. False: the door is being closed. */
bool door_limit(struct fuse_door *door, struct rate *rate, uint64_t amount);
/* Answers with an error of the volume: a negative errno as Linux' own file systems have it. */
void door_fail(fuse_req_t request, int error, struct error *err);
/* Whether anything can be asked of the volume. Else the request is answered. */
bool door_is_open(fuse_req_t request);
bool door_is_writable(fuse_req_t request); /* the same, to change something */
/* Counts against the size limit. False: too much. */
bool door_use(struct fuse_door *door, uint64_t bytes);
void door_unuse(struct fuse_door *door, uint64_t bytes);

/* fuse_threads.c */
int door_threads_watch(struct fuse_door *door, struct error *err);
int door_threads_start(struct fuse_door *door, struct error *err);
void door_threads_end(struct fuse_door *door); /* waits for them */
/* Gives away the turn to read requests, if this thread has it, and its place among those who read
 * now: before it waits. */
void door_let_others(void);

/* fuse_nodes.c */
void door_nodes_init(struct fuse_door *door);
void door_nodes_finish(struct fuse_door *door); /* lets go of everything */
/* The kernel's node of a volume's one, whose hold is taken over; looked up once more. */
struct door_node *door_node_take(struct fuse_door *door, struct node *node, enum node_type type,
                                 fuse_ino_t folder, const char *name);
/* The kernel has renamed it. */
void door_node_moved(struct fuse_door *door, const struct node *node, fuse_ino_t folder,
                     const char *name);
/* By which name the kernel found it; owned. NULL: it does not know it. */
char *door_node_name(struct fuse_door *door, const struct node *node, fuse_ino_t *ret_folder);
void door_node_forget(struct fuse_door *door, struct door_node *node, uint64_t times);
/* The number of a volume's node, if the kernel knows it; 0: it does not. */
fuse_ino_t door_node_known(struct fuse_door *door, const struct node *node);
/* Counts that a wrong name leads to it in the kernel's cache; NULL: the kernel does not know it. */
struct door_node *door_node_stale(struct fuse_door *door, const struct node *node);
void door_node_settled(struct fuse_door *door, struct door_node *node);
/* The kernel is to be told how long it is. It may forget the node meanwhile, but nothing else gets
 * its number. NULL: the kernel does not know it. */
struct door_node *door_node_keep(struct fuse_door *door, const struct node *node);
void door_node_told(struct fuse_door *door, struct door_node *node); /* from now on */
void door_node_let_be(struct fuse_door *door, struct door_node *node);
/* Whether what is asked of a file may be meant for another one: then ESTALE makes the kernel look
 * the path up anew. Waits until the kernel was told, a while at most. A second after it was told,
 * nobody who asks has found the file before that. */
bool door_node_is_suspect(struct fuse_door *door, struct door_node *node);
/* The same, at once: what is answered of it then must not be believed by whoever comes by a name.
 */
bool door_node_is_in_doubt(struct fuse_door *door, struct door_node *node);
/* There is no room for another one. node NULL: whichever. */
bool door_nodes_are_full(struct fuse_door *door, const struct node *node);
/* Where and by which name the kernel knows a node that it should forget, since there are too many;
 * owned. NULL: there is none. */
char *door_nodes_spare(struct fuse_door *door, fuse_ino_t *ret_folder);
/* What the kernel knows, one bucket after the other. *ret_list: owned, with the names, and the
 * nodes are kept; -1: there are no more buckets. */
struct door_known {
    fuse_ino_t folder;
    struct door_node *node;
    char *name;
    bool longer;
};
ssize_t door_nodes_known(struct fuse_door *door, size_t bucket, struct door_known **ret_list);

/* Seconds that the kernel may believe its attributes. Where a file was found by two spellings and
 * is removed by one of them, it must ask before it believes in the other one. */
static inline double door_belief(const struct door_node *node)
{
    return atomic_load(&node->misspelt) ? 0 : DOOR_BELIEF;
}

/* fuse_caches.c */

/* A name in a folder that led to this node (NULL: nobody asks) until a moment ago. */
void door_forget_name(struct fuse_door *door, fuse_ino_t folder, const char *name,
                      const struct node *node);
/* The kernel asks before it believes its attributes of a file; at once, also within a request. */
void door_doubt(struct fuse_door *door, const struct node *node);
/* The file is another one than the kernel knows: size, content. */
void door_forget_file(struct fuse_door *door, const struct node *node);
/* The kernel is to forget a few nodes where there are too many. */
void door_forget_spare(struct fuse_door *door);
/* So much is to be told already that nothing is begun of which more must be told. */
bool door_caches_are_full(struct fuse_door *door);
void door_caches_init(struct fuse_door *door);
/* Nothing is told any more, and nobody is at it. The threads are still there, since the kernel may
 * wait for them before it answers. */
void door_caches_stop(struct fuse_door *door);
void door_caches_finish(struct fuse_door *door);
/* Tells the kernel what there is to tell; not within a request that is not answered yet. */
void door_tell_kernel(struct fuse_door *door);

/* fuse_content.c */
void door_attributes(const struct fuse_door *door, const struct node_facts *facts,
                     struct stat *ret_status);

/* The requests: fuse_names.c */
void door_lookup(fuse_req_t request, fuse_ino_t parent, const char *name);
void door_forget(fuse_req_t request, fuse_ino_t ino, uint64_t lookups);
void door_forget_many(fuse_req_t request, size_t count, struct fuse_forget_data *forgets);
void door_mknod(fuse_req_t request, fuse_ino_t parent, const char *name, mode_t mode, dev_t device);
void door_mkdir(fuse_req_t request, fuse_ino_t parent, const char *name, mode_t mode);
void door_unlink(fuse_req_t request, fuse_ino_t parent, const char *name);
void door_rmdir(fuse_req_t request, fuse_ino_t parent, const char *name);
void door_rename(fuse_req_t request, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
                 const char *new_name, unsigned flags);
void door_readdir(fuse_req_t request, fuse_ino_t ino, size_t size, off_t offset,
                  struct fuse_file_info *info);
void door_readdirplus(fuse_req_t request, fuse_ino_t ino, size_t size, off_t offset,
                      struct fuse_file_info *info);

/* fuse_content.c */
/* The first part of a WRITE, in the order in which the kernel asks: it becomes the last one of
 * thread->writes. Behind others it must be one that waits for nothing: else -EAGAIN, and nothing
 * has changed. */
int door_write_begin(struct door_thread *thread, const struct fuse_buf *buffer);
/* Moves the content of all of them, and says in which order they are to be answered. */
void door_writes_move(struct door_thread *thread);
/* Whether more may be gathered behind it. */
bool door_write_is_small(const struct door_write *write);
void door_getattr(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *info);
void door_setattr(fuse_req_t request, fuse_ino_t ino, struct stat *status, int changes,
                  struct fuse_file_info *info);
void door_read(fuse_req_t request, fuse_ino_t ino, size_t size, off_t offset,
               struct fuse_file_info *info);
void door_write(fuse_req_t request, fuse_ino_t ino, const char *data, size_t size, off_t offset,
                struct fuse_file_info *info);
void door_fallocate(fuse_req_t request, fuse_ino_t ino, int mode, off_t offset, off_t length,
                    struct fuse_file_info *info);
void door_fsync(fuse_req_t request, fuse_ino_t ino, int only_data, struct fuse_file_info *info);
void door_statfs(fuse_req_t request, fuse_ino_t ino);

#endif
