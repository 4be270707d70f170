/* A server of options, with methods that wait, tell how far they are and pass descriptors on. */
#ifndef TEST_RPC_WIRED_H
#define TEST_RPC_WIRED_H

#include <rpc/channel.h>
#include <schema/management.h>
#include <schema/rpc.h>

#include "rpc_talk.h"

static struct rpc_request *held[16];
static size_t held_count, gone_count;
static int reason; /* enum rpc_wanted, of the last that was told */
static int denied_code;

/* ---- methods ---- */

static inline void on_echo(struct rpc_request *request, const void *params, void *context)
{
    const struct api_container_stop *how = params;
    struct api_container_created result = {.id = how->container};
    char *warnings[] = {xasprintf("%d", how->has_timeout ? (int)how->timeout : -1), NULL};

    result.warnings = warnings;
    result.warnings_count = 1;
    rpc_reply(request, &result, NULL, 0);
    free(warnings[0]);
}

static inline void on_gone(struct rpc_request *request, void *data)
{
    gone_count++;
    reason = (int)rpc_request_wanted(request);
    if (data)
        rpc_reply(request, NULL, NULL, 0);
}

static inline void on_hold(struct rpc_request *request, const void *params, void *context)
{
    held[held_count++] = request;
    rpc_request_on_cancel(request, on_gone, NULL);
}

static inline void on_step(struct rpc_request *request, const void *params, void *context)
{
    rpc_request_progress(request, 1, 3, "steps", "the first");
    rpc_request_progress(request, 2, 0, NULL, NULL);
    rpc_reply(request, NULL, NULL, 0);
}

static inline void on_pass(struct rpc_request *request, const void *params, void *context)
{
    int fd = rpc_request_take_fd(request, 0);

    rpc_reply(request, NULL, &fd, 1);
}

static const struct json_method types[] = {
    {.name = "echo", .params = &api_container_stop_type, .result = &api_container_created_type},
    {.name = "hold", .params = &api_empty_type, .result = &api_empty_type},
    {.name = "step", .params = &api_empty_type, .result = &api_empty_type},
    {.name = "pass",
     .params = &api_empty_type,
     .result = &api_empty_type,
     .param_fds = 1,
     .result_fds = 1},
};

static const struct rpc_method methods[] = {
    {&types[0], on_echo},
    {&types[1], on_hold},
    {&types[2], on_step},
    {&types[3], on_pass},
};

static inline int authorise(struct rpc_connection *connection, const struct json_method *method,
                            void *context, struct error *err)
{
    assert_int_equal(rpc_connection_peer(connection)->uid, getuid());
    return denied_code ? error_set(err, denied_code, "not for you") : 0;
}

static struct rpc_server_options options;

static inline int set_up(void **state)
{
    held_count = gone_count = 0;
    denied_code = 0;
    options = (struct rpc_server_options){.document = "{\"openrpc\":\"1.3.2\",\"methods\":[]}",
                                          .authorise = authorise};
    assert_int_equal(rpc_loop_create(&loop, NULL), 0);
    return 0;
}

static inline void serve(void)
{
    assert_int_equal(rpc_server_create(loop, &options, &server, NULL), 0);
    assert_int_equal(rpc_server_add_methods(server, methods, ARRAY_SIZE(methods), NULL), 0);
}

static inline void release_held(void)
{
    while (held_count)
        rpc_reply(held[--held_count], NULL, NULL, 0);
}

static inline int tear_down(void **state)
{
    rpc_server_destroy(server);
    release_held();
    rpc_loop_run_once(loop, 0);
    rpc_loop_destroy(loop);
    return 0;
}

#define wire_test(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

#endif
