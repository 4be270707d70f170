/*
 * Requests on their way to the thread that does them: many submitters, one thread that takes, no
 * lock.
 *
 * A submitter puts its request in front of a list by one compare-and-exchange; the thread takes the
 * whole list by one exchange and turns it round, so that requests come in the order in which they
 * were put. Only the one that finds the list empty wakes the thread.
 */
#ifndef BLOCK_QUEUE_H
#define BLOCK_QUEUE_H

#include <stdatomic.h>

#include <block/device.h>

struct block_queue {
    _Atomic(struct block_request *) newest;
    int wake; /* eventfd: readable when there is something */
};

int block_queue_init(struct block_queue *queue, struct error *err);
void block_queue_finish(struct block_queue *queue); /* must be empty */

/* Any thread. True: there was nothing before, so that the thread is to be woken. This and
 * block_queue_is_empty() are in one order with all other sequentially consistent operations. */
bool block_queue_push(struct block_queue *queue, struct block_request *request);
bool block_queue_is_empty(const struct block_queue *queue);
void block_queue_put(struct block_queue *queue, struct block_request *request); /* push and wake */

/* The one thread: everything that was put, oldest first, linked by next; NULL when there is
 * nothing. */
struct block_request *block_queue_take(struct block_queue *queue);

/* The one thread: sleeps until there is something or block_queue_wake() was called. */
void block_queue_wait(struct block_queue *queue);
void block_queue_wake(struct block_queue *queue); /* any thread, signal handlers too */

#endif
