/* Jobs about one port run in their order, those of others beside them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"
#include "usb_turns.h"

enum { JOBS = 6 };

static struct engine engine;
static uv_loop_t loop;
static struct usb usb;
static atomic_uint at_work, most_at_work;

struct job {
    uv_work_t work;
    unsigned wait_ms;
    bool ran;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char order[64]; /* in which they ended */

static void run(uv_work_t *work)
{
    struct job *job = work->data;
    unsigned now = atomic_fetch_add(&at_work, 1) + 1, most = atomic_load(&most_at_work);
    while (now > most && !atomic_compare_exchange_weak(&most_at_work, &most, now))
        ;
    usleep(job->wait_ms * 1000);
    pthread_mutex_lock(&lock);
    snprintf(order + strlen(order), sizeof(order) - strlen(order), "%u ", job->wait_ms);
    pthread_mutex_unlock(&lock);
    atomic_fetch_sub(&at_work, 1);
}

static void done(uv_work_t *work, int status)
{
    ((struct job *)work->data)->ran = true;
}

static void run_jobs(const char *const ports[JOBS])
{
    static struct job jobs[JOBS];
    order[0] = '\0';
    atomic_store(&most_at_work, 0);
    for (unsigned i = 0; i < JOBS; i++) {
        jobs[i] = (struct job){.wait_ms = 10 * (JOBS - i)}; /* alone, the last would end first */
        jobs[i].work.data = &jobs[i];
        usb_turn_run(&usb, ports[i], &jobs[i].work, run, done);
    }
    assert_int_equal(usb.errands, JOBS);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(usb.errands, 0);
    assert_null(usb.turns);
    for (unsigned i = 0; i < JOBS; i++)
        assert_true(jobs[i].ran);
}

static void of_one_port_they_run_in_their_order(void **state)
{
    run_jobs((const char *const[JOBS]){"1-1", "1-1", "1-1", "1-1", "1-1", "1-1"});
    assert_string_equal(order, "60 50 40 30 20 10 ");
    assert_int_equal(atomic_load(&most_at_work), 1);
}

static void those_of_another_do_not_wait(void **state)
{
    run_jobs((const char *const[JOBS]){"1-1", "1-2", "1-1", "1-2", "1-1", "1-2"});
    assert_int_equal(atomic_load(&most_at_work), 2);
    run_jobs((const char *const[JOBS]){"", "", "", "", "", ""});
    assert_true(atomic_load(&most_at_work) > 2);
}

static int set_up(void **state)
{
    engine.loop = &loop;
    usb.engine = &engine;
    return uv_loop_init(&loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(of_one_port_they_run_in_their_order),
        cmocka_unit_test(those_of_another_do_not_wait),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
