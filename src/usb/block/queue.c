#include <block/queue.h>

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

int block_queue_init(struct block_queue *queue, struct error *err)
{
    atomic_init(&queue->newest, NULL);
    queue->wake = eventfd(0, EFD_CLOEXEC);
    return queue->wake < 0 ? error_errno(err, errno, "eventfd") : 0;
}

void block_queue_finish(struct block_queue *queue)
{
    close_fd(queue->wake);
    queue->wake = -1;
}

bool block_queue_push(struct block_queue *queue, struct block_request *request)
{
    struct block_request *newest = atomic_load_explicit(&queue->newest, memory_order_relaxed);
    do
        request->next = newest;
    while (!atomic_compare_exchange_weak_explicit(&queue->newest, &newest, request,
                                                  memory_order_seq_cst, memory_order_relaxed));
    return !newest;
}

bool block_queue_is_empty(const struct block_queue *queue)
{
    return !atomic_load(&queue->newest);
}

void block_queue_put(struct block_queue *queue, struct block_request *request)
{
    if (block_queue_push(queue, request))
        block_queue_wake(queue);
}

struct block_request *block_queue_take(struct block_queue *queue)
{
    struct block_request *newest =
        atomic_exchange_explicit(&queue->newest, NULL, memory_order_acquire);
    struct block_request *oldest = NULL;
    while (newest) {
        struct block_request *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    return oldest;
}

void block_queue_wait(struct block_queue *queue)
{
    uint64_t count;
    while (read(queue->wake, &count, sizeof(count)) < 0 && errno == EINTR)
        ;
}

void block_queue_wake(struct block_queue *queue)
{
    int saved = errno;
    uint64_t one = 1;
    while (write(queue->wake, &one, sizeof(one)) < 0 && errno == EINTR)
        ;
    errno = saved;
}
