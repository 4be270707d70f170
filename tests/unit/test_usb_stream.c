/* What is read ahead of readers in order: on a device whose requests are done when the test says.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>
#include <block/stream.h>

enum { SECTOR = 512, SECTORS = 8192, READ = 8, WAITING_MOST = 64 };

struct slow {
    struct block_device device; /* first */
    struct block_device *stream;
    uint8_t *data;
    struct block_request *waiting[WAITING_MOST]; /* oldest first */
    unsigned count, reads;                       /* reads: ever submitted */
    uint64_t end;                                /* of what was read last, in sectors */
    atomic_int lost;
    int result; /* what requests end in; 0: they are done */
};

static void submit(struct block_device *device, struct block_request *request)
{
    struct slow *slow = (struct slow *)device;
    assert_in_range(slow->count, 0, WAITING_MOST - 1);
    slow->waiting[slow->count++] = request;
    if (request->operation == BLOCK_READ) {
        slow->reads++;
        slow->end = request->at + request->count;
    }
}

static const struct block_device_ops slow_ops = {.submit = submit};

/* The n-th of those that wait. */
static void carry_out(struct slow *slow, unsigned n)
{
    assert_in_range(n, 0, slow->count - 1);
    struct block_request *request = slow->waiting[n];
    uint8_t *at = slow->data + request->at * SECTOR;
    memmove(&slow->waiting[n], &slow->waiting[n + 1],
            (--slow->count - n) * sizeof(slow->waiting[0]));
    request->result = slow->result;
    if (slow->result == 0 && request->operation == BLOCK_READ)
        memcpy(request->data, at, (size_t)request->count * SECTOR);
    else if (slow->result == 0 && request->operation == BLOCK_WRITE)
        memcpy(at, request->data, (size_t)request->count * SECTOR);
    request->done(request);
}

static void carry_out_all(struct slow *slow)
{
    while (slow->count > 0)
        carry_out(slow, 0);
}

static struct slow *start(void)
{
    struct slow *slow = xnew(struct slow);
    slow->data = xmalloc(SECTORS * SECTOR);
    for (size_t i = 0; i < SECTORS * SECTOR; i++)
        slow->data[i] = (uint8_t)(i / SECTOR * 7 + i);
    slow->device = (struct block_device){
        .ops = &slow_ops,
        .whole = &slow->device,
        .sector_size = SECTOR,
        .sectors = SECTORS,
        .discards = true,
        .lost = &slow->lost,
    };
    slow->stream = block_stream_create(&slow->device);
    return slow;
}

static void finish(struct slow *slow)
{
    carry_out_all(slow);
    block_device_destroy(slow->stream);
    free(slow->data);
    free(slow);
}

/* A request of the reader's. */
struct asked {
    struct block_request request; /* first */
    bool is_done;
    uint8_t data[READ * SECTOR];
};

static void note_done(struct block_request *request)
{
    ((struct asked *)request)->is_done = true;
}

static void ask(struct slow *slow, struct asked *asked, enum block_operation operation, uint64_t at)
{
    *asked = (struct asked){.request = {.operation = operation,
                                        .sector = at,
                                        .count = READ,
                                        .data = asked->data,
                                        .done = note_done}};
    if (operation == BLOCK_WRITE)
        memset(asked->data, 0xA5, sizeof(asked->data));
    block_submit(slow->stream, &asked->request);
}

static void assert_good(const struct slow *slow, const struct asked *asked)
{
    assert_true(asked->is_done);
    assert_int_equal(asked->request.result, 0);
    assert_memory_equal(asked->data, slow->data + asked->request.sector * SECTOR, READ * SECTOR);
}

/* In order from there on, so that there is something ahead; where it went on to. */
static uint64_t read_some(struct slow *slow, uint64_t at)
{
    struct asked asked;
    for (int i = 0; i < 3; i++, at += READ) {
        ask(slow, &asked, BLOCK_READ, at);
        carry_out_all(slow);
        assert_good(slow, &asked);
    }
    return at;
}

static void who_reads_in_order_finds_what_comes_next(void **state)
{
    struct slow *slow = start();
    struct asked asked;
    unsigned from_memory = 0;
    for (uint64_t at = 0; at < SECTORS; at += READ) {
        ask(slow, &asked, BLOCK_READ, at);
        from_memory += asked.is_done;
        carry_out_all(slow);
        assert_good(slow, &asked);
    }
    assert_in_range(from_memory, SECTORS / READ - 2, SECTORS / READ - 1);
    assert_in_range(slow->reads, 4, 20); /* four megabytes, up to half a megabyte each */
    assert_int_equal(slow->end, SECTORS);
    finish(slow);
}

static void who_reads_here_and_there_is_not_read_ahead_for(void **state)
{
    struct slow *slow = start();
    struct asked asked;
    for (uint64_t i = 0; i < 100; i++) {
        ask(slow, &asked, BLOCK_READ, i * 5000 % (SECTORS - READ));
        carry_out_all(slow);
        assert_good(slow, &asked);
    }
    assert_int_equal(slow->reads, 100);
    finish(slow);
}

static void what_is_on_its_way_is_waited_for(void **state)
{
    struct slow *slow = start();
    struct asked asked[6];
    for (uint64_t i = 0; i < 6; i++)
        ask(slow, &asked[i], BLOCK_READ, i * READ);
    assert_int_equal(slow->reads, 4); /* of these two, and two pieces */
    carry_out(slow, 0);
    carry_out(slow, 0);
    assert_true(asked[0].is_done && asked[1].is_done && !asked[2].is_done);
    carry_out(slow, 0);
    for (int i = 0; i < 6; i++)
        assert_good(slow, &asked[i]);
    finish(slow);
}

static void what_is_written_is_read_as_it_is_then(void **state)
{
    struct slow *slow = start();
    struct asked asked, other;
    uint64_t at = read_some(slow, 0);
    ask(slow, &asked, BLOCK_WRITE, at);
    carry_out_all(slow);
    assert_true(asked.is_done);
    assert_int_equal(slow->data[at * SECTOR], 0xA5);
    ask(slow, &other, BLOCK_READ, at);
    carry_out_all(slow);
    assert_good(slow, &other);
    finish(slow);
}

/* The device does the piece first, or the write: whoever reads after the write has what it wrote.
 */
static void what_was_on_its_way_before_a_write_is_not_used_after_it(void **state)
{
    for (unsigned order = 0; order < 2; order++) {
        struct slow *slow = start();
        struct asked asked, other;
        ask(slow, &asked, BLOCK_READ, 0);
        carry_out_all(slow);
        ask(slow, &asked, BLOCK_READ, READ);
        carry_out(slow, 0);
        assert_int_equal(slow->count, 1); /* a piece */
        ask(slow, &other, BLOCK_WRITE, 2 * READ);
        carry_out(slow, order);
        carry_out_all(slow);
        assert_true(other.is_done);
        ask(slow, &asked, BLOCK_READ, 2 * READ);
        carry_out_all(slow);
        assert_good(slow, &asked);
        finish(slow);
    }
}

static void nothing_is_read_ahead_beside_a_write(void **state)
{
    struct slow *slow = start();
    struct asked write, asked[4];
    ask(slow, &write, BLOCK_WRITE, 4000);
    for (uint64_t i = 0; i < 4; i++)
        ask(slow, &asked[i], BLOCK_READ, i * READ);
    assert_int_equal(slow->reads, 4);
    carry_out_all(slow);
    assert_int_equal(slow->reads, 4);
    for (int i = 0; i < 4; i++)
        assert_good(slow, &asked[i]);
    ask(slow, &asked[0], BLOCK_READ, 4 * READ);
    carry_out_all(slow);
    assert_int_equal(slow->reads, 6);
    finish(slow);
}

static void discarding_forgets_too(void **state)
{
    struct slow *slow = start();
    struct asked asked;
    uint64_t at = read_some(slow, 0);
    ask(slow, &asked, BLOCK_DISCARD, at);
    carry_out_all(slow);
    memset(slow->data + at * SECTOR, 0, READ * SECTOR);
    ask(slow, &asked, BLOCK_READ, at);
    carry_out_all(slow);
    assert_good(slow, &asked);
    finish(slow);
}

/* A piece that cannot be read is nobody's error but his who wants what cannot be read. */
static void who_waited_for_a_piece_that_fails_asks_for_himself(void **state)
{
    struct slow *slow = start();
    struct asked asked[3];
    for (uint64_t i = 0; i < 3; i++)
        ask(slow, &asked[i], BLOCK_READ, i * READ);
    carry_out(slow, 0);
    carry_out(slow, 0);
    slow->result = -EIO;
    carry_out(slow, 0);
    slow->result = 0;
    assert_false(asked[2].is_done);
    carry_out_all(slow);
    assert_good(slow, &asked[2]);
    finish(slow);
}

static void nothing_of_a_lost_medium_is_read_from_memory(void **state)
{
    struct slow *slow = start();
    struct asked asked;
    uint64_t at = read_some(slow, 0);
    atomic_store(&slow->lost, -ENOMEDIUM);
    slow->result = -ENOMEDIUM;
    ask(slow, &asked, BLOCK_READ, at);
    carry_out_all(slow);
    assert_true(asked.is_done);
    assert_int_equal(asked.request.result, -ENOMEDIUM);
    finish(slow);
}

static void *destroy(void *stream)
{
    block_device_destroy(stream);
    return NULL;
}

static void it_goes_when_what_is_on_its_way_has_come(void **state)
{
    struct slow *slow = start();
    struct asked asked[2];
    pthread_t thread;
    ask(slow, &asked[0], BLOCK_READ, 0);
    ask(slow, &asked[1], BLOCK_READ, READ);
    carry_out(slow, 0);
    carry_out(slow, 0);
    assert_int_equal(slow->count, 1);
    assert_int_equal(pthread_create(&thread, NULL, destroy, slow->stream), 0);
    usleep(20000); /* else it may have waited for nothing */
    assert_int_equal(pthread_tryjoin_np(thread, NULL), EBUSY);
    carry_out_all(slow);
    pthread_join(thread, NULL);
    slow->stream = NULL;
    finish(slow);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_reads_in_order_finds_what_comes_next),
        cmocka_unit_test(who_reads_here_and_there_is_not_read_ahead_for),
        cmocka_unit_test(what_is_on_its_way_is_waited_for),
        cmocka_unit_test(what_is_written_is_read_as_it_is_then),
        cmocka_unit_test(what_was_on_its_way_before_a_write_is_not_used_after_it),
        cmocka_unit_test(nothing_is_read_ahead_beside_a_write),
        cmocka_unit_test(discarding_forgets_too),
        cmocka_unit_test(who_waited_for_a_piece_that_fails_asks_for_himself),
        cmocka_unit_test(nothing_of_a_lost_medium_is_read_from_memory),
        cmocka_unit_test(it_goes_when_what_is_on_its_way_has_come),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
