/* src/usb/server: who has which volume. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include <base/alloc.h>

#include "server.h"

enum { A_WHILE_US = 100 * 1000, STUCK_S = 20 };

static int eject_nothing(struct server *server, unsigned unit, struct error *err)
{
    (void)server;
    (void)unit;
    (void)err;
    return 0;
}

static const struct source_ops no_source = {.eject = eject_nothing};

static struct server *server_create(void)
{
    struct server *server = xnew(struct server);
    pthread_mutex_init(&server->lock, NULL);
    pthread_cond_init(&server->changed, NULL);
    pthread_cond_init(&server->work, NULL);
    server->source = &no_source;
    server->unit_count = 1;
    server->units[0].is_read = true;
    alarm(STUCK_S);
    return server;
}

static void server_destroy(struct server *server)
{
    alarm(0);
    pthread_cond_destroy(&server->work);
    pthread_cond_destroy(&server->changed);
    pthread_mutex_destroy(&server->lock);
    free(server);
}

struct asked {
    struct server *server;
    int (*run)(struct job *job, struct usb_stick_result *result, struct error *err);
    struct usb_stick_request *request;
    pthread_t thread;
    int result;
};

static void *ask(void *data)
{
    struct asked *asked = data;
    struct job job = {.server = asked->server, .request = asked->request};
    struct usb_stick_result result = {0};
    asked->result = asked->run(&job, &result, NULL);
    return NULL;
}

static void begin(struct asked *asked)
{
    assert_int_equal(pthread_create(&asked->thread, NULL, ask, asked), 0);
    usleep(A_WHILE_US);
}

static int end(struct asked *asked)
{
    pthread_join(asked->thread, NULL);
    return asked->result;
}

/* The keeper frees it: here it stays, and is never given back again. */
static void a_volume_that_goes_while_it_is_waited_for_is_not_touched(void **state)
{
    struct server *server = server_create();
    struct stick_volume volume = {.number = 1, .busy = "sync"};
    struct usb_stick_eject unit = {.unit = 0, .has_unit = true};
    struct usb_stick_request request = {.eject = &unit};
    struct asked eject = {.server = server, .run = job_eject, .request = &request};

    server->volumes = &volume;
    begin(&eject);
    pthread_mutex_lock(&server->lock);
    server->volumes = NULL;
    volume.busy = "gone";
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->lock);
    assert_int_equal(end(&eject), 0);
    assert_string_equal(volume.busy, "gone");
    server_destroy(server);
}

static void what_is_lost_is_left_to_the_keeper(void **state)
{
    struct server *server = server_create();
    struct stick_volume volume = {.number = 1, .busy = "unmount", .lost = true};
    struct usb_stick_eject unit = {.unit = 0, .has_unit = true};
    struct usb_stick_request request = {.eject = &unit};
    struct asked eject = {.server = server, .run = job_eject, .request = &request};

    server->volumes = &volume;
    begin(&eject);
    assert_int_equal(end(&eject), 0);
    assert_string_equal(volume.busy, "unmount");
    server_destroy(server);
}

static void what_is_not_lengthy_any_more_is_waited_for(void **state)
{
    struct server *server = server_create();
    struct stick_volume volume = {.number = 1}, *taken;

    server->volumes = &volume;
    assert_int_equal(volume_take(server, 1, "check", true, &taken, NULL), 0);
    assert_int_equal(volume_take(server, 1, "mount", false, &taken, NULL), -EBUSY);
    volume_give(server, &volume);
    assert_false(volume.is_lengthy); /* the keeper, which ticks, does not say what it is */
    assert_int_equal(unit_take(server, 0, "format", NULL), 0);
    unit_give(server, 0, false);
    assert_false(volume.is_lengthy);
    server_destroy(server);
}

static void a_unit_without_volumes_that_is_formatted_is_not_ejected(void **state)
{
    struct server *server = server_create();
    struct usb_stick_eject unit = {.unit = 0, .has_unit = true};
    struct usb_stick_request request = {.eject = &unit};
    struct asked eject = {.server = server, .run = job_eject, .request = &request};

    assert_int_equal(unit_take(server, 0, "format", NULL), 0);
    assert_int_equal(unit_take(server, 0, "format", NULL), -EBUSY);
    begin(&eject);
    assert_int_equal(end(&eject), -EBUSY);
    unit_give(server, 0, false);
    begin(&eject);
    assert_int_equal(end(&eject), 0);
    server_destroy(server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_volume_that_goes_while_it_is_waited_for_is_not_touched),
        cmocka_unit_test(what_is_lost_is_left_to_the_keeper),
        cmocka_unit_test(what_is_not_lengthy_any_more_is_waited_for),
        cmocka_unit_test(a_unit_without_volumes_that_is_formatted_is_not_ejected),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
