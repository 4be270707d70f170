/*
 * Who is about to wait may have something that others need meanwhile: a door's thread has the turn
 * to read requests, and keeps it while it answers what needs no waiting, since to wake another
 * thread for each request costs more than most requests do.
 *
 * What waits for long, or for who knows how long, says so first: whole pieces of content, flushes,
 * commits, locks that somebody has. What does not say so holds up requests as long as it takes.
 */
#ifndef BLOCK_WAITING_H
#define BLOCK_WAITING_H

#include <pthread.h>
#include <stddef.h>

/* Called on this thread before it waits, with any lock of files/ and block/ held: must not wait,
 * nor take a lock. NULL: nobody cares. */
extern _Thread_local void (*block_before_waiting)(void);

static inline void block_will_wait(void)
{
    if (block_before_waiting)
        block_before_waiting();
}

static inline void block_lock(pthread_mutex_t *lock)
{
    if (pthread_mutex_trylock(lock) == 0)
        return;
    block_will_wait();
    pthread_mutex_lock(lock);
}

static inline void block_lock_to_read(pthread_rwlock_t *lock)
{
    if (pthread_rwlock_tryrdlock(lock) == 0)
        return;
    block_will_wait();
    pthread_rwlock_rdlock(lock);
}

static inline void block_lock_to_write(pthread_rwlock_t *lock)
{
    if (pthread_rwlock_trywrlock(lock) == 0)
        return;
    block_will_wait();
    pthread_rwlock_wrlock(lock);
}

#endif
