/*
 * The nodes that are held, by number and by where their entries are on the medium: one and the same
 * file has one node. A kind's own node begins with a struct node.
 *
 * The number is the place of the entry when the node is made, and stays when the entry moves; where
 * another node that moved away still has it, it is the next one of a counter. Any thread may call;
 * the table locks for itself.
 */
#ifndef FILES_NODES_H
#define FILES_NODES_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NODE_NOWHERE UINT64_MAX /* the place of what was removed */
enum { NODE_ROOT = 1 };         /* its number, and its place */

struct node {
    uint64_t number, place, holds;
    struct node *next_number, *next_place;
};

struct nodes {
    pthread_mutex_t lock;
    struct node **by_number, **by_place;
    size_t room, count;
    uint64_t next_number; /* of those that are no places */
};

void nodes_init(struct nodes *nodes);
void nodes_finish(struct nodes *nodes); /* the nodes are the kind's to free, before */

/* The node of a place, held once more; NULL: there is none. */
struct node *nodes_find(struct nodes *nodes, uint64_t place);

/* Puts node in, held once, unless another thread was faster: then it is that one, held once more.
 */
struct node *nodes_add(struct nodes *nodes, struct node *node, uint64_t place);

/* The number of the file at a place: of its node, or one that no node has. */
uint64_t nodes_number(struct nodes *nodes, uint64_t place);

/* Its entry is somewhere else from now on. */
void nodes_move(struct nodes *nodes, struct node *node, uint64_t place);

void nodes_hold(struct nodes *nodes, struct node *node);

/* True: it was the last hold; the node is out of the table, and the caller frees it. */
bool nodes_drop(struct nodes *nodes, struct node *node, uint64_t times);

/* Every node, with the lock of the table. */
void nodes_each(struct nodes *nodes, void (*look)(struct node *node, void *data), void *data);

/* Any node that is left, out of the table; for the end. NULL: there is none. */
struct node *nodes_any(struct nodes *nodes);

#endif
