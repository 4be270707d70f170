/*
 * A client of several endpoints: its making and its end, its thread, and the faces of what the
 * other files do.
 */
#include <errno.h>
#include <signal.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/cbor.h>
#include <schema/rpc.h>
#include <schema/scan.h>
#include <schema/utf8.h>

#include "pool.h"

#define DEFAULT_SOCKET "/run/cloche/cloche.sock"

enum {
    METHOD_NAME_MAX = 128,
    SIZE_OF_ANY_MAX = 4096,
    ENVELOPE_MAX = 1024, /* bytes of a request beside its parameters */
};

/* ---- small things ---- */

void client_lock(struct cloche_client *client)
{
    pthread_mutex_lock(&client->lock);
}

void client_unlock(struct cloche_client *client)
{
    pthread_mutex_unlock(&client->lock);
}

uint64_t monotonic_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

int poll_ms(uint64_t deadline)
{
    uint64_t now = deadline == NEVER ? 0 : monotonic_now();
    uint64_t ms = deadline > now ? (deadline - now) / NS_PER_MS + 1 : 0;

    if (deadline == NEVER)
        return -1;
    return ms > INT32_MAX ? INT32_MAX : (int)ms;
}

uint64_t deadline_after(uint64_t now, uint64_t timeout_ms)
{
    return timeout_ms >= NEVER / NS_PER_MS / 2 ? NEVER : now + timeout_ms * NS_PER_MS;
}

uint64_t attempt_deadline(const struct cloche_client *client, uint64_t deadline, bool idempotent,
                          unsigned attempt)
{
    if (!idempotent || !client->settings.attempt_timeout_ms || attempt >= client->settings.attempts)
        return deadline;
    uint64_t limit = deadline_after(monotonic_now(), client->settings.attempt_timeout_ms);
    return limit < deadline ? limit : deadline;
}

uint64_t client_timeout(const struct cloche_client *client, const struct json_method *method,
                        const struct cloche_call_options *options)
{
    if (options && options->timeout_ms)
        return options->timeout_ms;
    return method->is_long ? CLOCHE_NO_TIMEOUT : client->settings.timeout_ms;
}

/* xorshift64*: which endpoint, and when; nothing that anybody must not guess. */
uint64_t client_random(struct cloche_client *client)
{
    client->random ^= client->random >> 12;
    client->random ^= client->random << 25;
    client->random ^= client->random >> 27;
    return (client->random * UINT64_C(2685821657736338717)) >> 16;
}

int error_give(struct cloche_error *error, struct error *err, int fault,
               struct fault_details *details)
{
    int code = err->code;

    if (error) {
        cloche_error_finish(error);
        *error = (struct cloche_error){.code = code,
                                       .fault = fault,
                                       .message = steal_ptr(err->message),
                                       .hint = steal_ptr(err->hint)};
        if (fault && details) {
            error->what = steal_ptr(details->what);
            error->where = steal_ptr(details->where);
        }
    }
    return code;
}

void cloche_error_finish(struct cloche_error *error)
{
    if (!error)
        return;
    free(error->message);
    free(error->hint);
    free(error->what);
    free(error->where);
    *error = (struct cloche_error){0};
}

const char *cloche_string_map_get(const struct cloche_string_map *map, const char *key)
{
    for (size_t i = 0; map && i < map->count; i++) {
        if (text_equal(map->keys[i], key))
            return map->values[i];
    }
    return NULL;
}

/* ---- what a caller brings ---- */

static bool is_method_name(const char *name)
{
    size_t length = name ? strlen(name) : 0;

    return length > 0 && length <= METHOD_NAME_MAX &&
           strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") ==
               length;
}

/* Line ends stand between values only, and would end the message. */
static int take_params(const char *params, char **ret, struct error *err)
{
    size_t length = strlen(params);
    struct json_scan scan = {.at = params, .end = params + length};
    struct json_token token;

    json_scan_blank(&scan);
    char first = json_scan_peek(&scan);
    if ((first != '{' && first != '[') || utf8_check(params, length) < length ||
        !json_scan_skip(&scan, RPC_DEPTH_MAX - 1, &token))
        return error_set(err, -EINVAL, "the parameters are not a JSON object or array");
    json_scan_blank(&scan);
    if (scan.at != scan.end)
        return error_set(err, -EINVAL, "something stands behind the parameters");
    *ret = xstrdup(params);
    for (char *at = *ret; *at; at++) {
        if (*at == '\n' || *at == '\r')
            *at = ' ';
    }
    return 0;
}

/* Up to and with a member, the last that the first version of a structure had: programs that were
 * built with it go on working when others have come behind. */
#define SIZE_UP_TO(structure, member)                                                              \
    (offsetof(structure, member) + sizeof(((structure *)NULL)->member))

/* Copies what the caller's version of a structure has; the rest of ours is zero. What a later
 * version may have at its end has to be zero. */
static int take_structure(const void *given, size_t least, void *ret, size_t ours, const char *what,
                          struct error *err)
{
    size_t size;

    memcpy(&size, given, sizeof(size));
    if (size < least || size > SIZE_OF_ANY_MAX)
        return error_set(err, -EINVAL, "%s: their size is not set", what);
    for (size_t i = ours; i < size; i++) {
        if (((const char *)given)[i])
            return error_set(err, -E2BIG, "%s have members that this library does not know", what);
    }
    memset(ret, 0, ours);
    memcpy(ret, given, size < ours ? size : ours);
    return 0;
}

struct cloche_progress show_progress(const struct rpc_progress *progress)
{
    return (struct cloche_progress){.done = progress->done,
                                    .total = progress->has_total ? progress->total : 0,
                                    .unit = progress->unit,
                                    .text = progress->text};
}

int take_options(const struct cloche_call_options *given, struct cloche_call_options *ret,
                 struct error *err)
{
    *ret = (struct cloche_call_options){.size = sizeof(*ret)};
    if (!given)
        return 0;
    int r = take_structure(given, SIZE_UP_TO(struct cloche_call_options, progress_data), ret,
                           sizeof(*ret), "the options", err);
    if (r < 0)
        return r;
    if (ret->fds_count > RPC_FDS_MAX)
        return error_set(err, -E2BIG, "more than %d descriptors", RPC_FDS_MAX);
    if ((ret->fds_count && !ret->fds) || !ret->ret_fds != !ret->ret_fds_count)
        return error_set(err, -EINVAL, "descriptors and their number go together");
    return 0;
}

int take_stub_options(const struct cloche_call_options *given, struct cloche_call_options *ret,
                      struct error *err)
{
    int r = take_options(given, ret, err);

    if (r == 0 && (ret->fds || ret->ret_fds))
        r = error_set(err, -EINVAL, "descriptors are arguments of the function");
    return r;
}

int take_subscribe_options(const struct cloche_subscribe_options *given,
                           struct cloche_subscribe_options *ret, struct error *err)
{
    *ret = (struct cloche_subscribe_options){.size = sizeof(*ret)};
    if (!given)
        return 0;
    return take_structure(given, SIZE_UP_TO(struct cloche_subscribe_options, changed), ret,
                          sizeof(*ret), "the options", err);
}

/* An asynchronous call shares its connection, and its callback gets what came. */
static int take_async_options(const struct cloche_call_options *given,
                              struct cloche_call_options *ret, struct error *err)
{
    int r = take_options(given, ret, err);

    if (r == 0 && (ret->ret_fds || ret->connection || ret->cancel))
        r = error_set(err, -EINVAL, "ret_fds, connection and cancel are for synchronous calls");
    return r;
}

/* Not all that JSON text can hold can be said in CBOR. */
static int check_encoding(const struct cloche_client *client, const char *params, struct error *err)
{
    _cleanup_buffer_ struct buffer scratch = BUFFER_INIT;

    if (client->settings.encoding != CLOCHE_ENCODING_CBOR)
        return 0;
    int r = cbor_from_json(params, strlen(params), &scratch, err);
    if (r == 0 && scratch.length > RPC_MESSAGE_MAX - ENVELOPE_MAX)
        return error_set(err, -EFBIG, "the request is longer than %d bytes", RPC_MESSAGE_MAX);
    if (r < 0)
        error_context(err, "the parameters");
    return r;
}

int check_call(const struct cloche_client *client, const char *method, const char *params,
               char **ret_params, struct error *err)
{
    if (!is_method_name(method))
        return error_set(err, -EINVAL, "'%s' is no name of a method", method ? method : "");
    int r = params ? take_params(params, ret_params, err) : 0;
    return r == 0 && params ? check_encoding(client, *ret_params, err) : r;
}

static int set_number(uint64_t given, uint64_t otherwise, uint64_t most, uint64_t *ret)
{
    *ret = given ? given : otherwise;
    return given <= most ? 0 : -EINVAL;
}

static int take_settings(struct cloche_client *client, const struct cloche_client_settings *given,
                         struct error *err)
{
    static const struct cloche_client_settings defaults = {.size = sizeof(defaults)};
    struct cloche_client_settings *to = &client->settings, *from = to;
    uint64_t connections = 0, attempts = 0, waiting = 0;

    int r = take_structure(given ? given : &defaults,
                           SIZE_UP_TO(struct cloche_client_settings, waiting), to, sizeof(*to),
                           "the settings", err);
    if (r < 0)
        return r;
    to->endpoints = NULL;
    if (set_number(from->connections, 4, CLOCHE_CLIENT_CONNECTIONS_MAX, &connections) < 0 ||
        set_number(from->attempts, 16, 1 << 20, &attempts) < 0 ||
        set_number(from->waiting, 65536, 1 << 24, &waiting) < 0 ||
        set_number(from->connect_timeout_ms, 1000, INT32_MAX, &to->connect_timeout_ms) < 0 ||
        set_number(from->probe_first_ms, 20, INT32_MAX, &to->probe_first_ms) < 0 ||
        set_number(from->probe_most_ms, 5000, INT32_MAX, &to->probe_most_ms) < 0 ||
        (unsigned)from->balance > CLOCHE_CLIENT_RANDOM ||
        (unsigned)from->encoding > CLOCHE_ENCODING_CBOR)
        return error_set(err, -EINVAL, "a number of the settings is out of range");
    to->timeout_ms = from->timeout_ms ? from->timeout_ms : 30000;
    to->connections = (unsigned)connections;
    to->attempts = (unsigned)attempts;
    to->waiting = (unsigned)waiting;
    return 0;
}

static int take_tls(struct cloche_client *client, struct error *err)
{
    struct cloche_client_settings *settings = &client->settings;

    if (!settings->tls_cert != !settings->tls_key)
        return error_set(err, -EINVAL, "a certificate and its key come together");
    client->tls =
        (struct tls_settings){.ca = settings->tls_ca ? xstrdup(settings->tls_ca) : NULL,
                              .cert = settings->tls_cert ? xstrdup(settings->tls_cert) : NULL,
                              .key = settings->tls_key ? xstrdup(settings->tls_key) : NULL,
                              .name = settings->tls_name ? xstrdup(settings->tls_name) : NULL};
    settings->tls_ca = settings->tls_cert = settings->tls_key = settings->tls_name = NULL;
    return 0;
}

static const char *default_endpoint(void)
{
    const char *path = secure_getenv("CLOCHE_SOCKET");

    return text_empty(path) ? DEFAULT_SOCKET : path;
}

static int take_endpoints(struct cloche_client *client, const char *const *names, struct error *err)
{
    const char *const ours[] = {default_endpoint(), NULL};
    size_t count = 0;
    int r = 0;

    if (!names)
        names = ours;
    while (names[count] && count <= CLOCHE_CLIENT_ENDPOINTS_MAX)
        count++;
    if (count == 0 || count > CLOCHE_CLIENT_ENDPOINTS_MAX)
        return error_set(err, -EINVAL, "from 1 to %d endpoints are expected",
                         CLOCHE_CLIENT_ENDPOINTS_MAX);
    client->endpoints = xnew_array(struct endpoint, count);
    for (size_t i = 0; r == 0 && i < count; i++) {
        struct endpoint *endpoint = &client->endpoints[client->endpoints_count++];
        endpoint_init(endpoint, client, i);
        endpoint->name = xstrdup(names[i]);
        endpoint->address.tls = &client->tls;
        r = address_parse(names[i], &endpoint->address, err);
    }
    return r;
}

/* ---- fork(2): what both processes wrote to a connection, and read from it, would be mixed ---- */

static _Atomic unsigned forks; /* of which this process is the child */

static void on_fork(void)
{
    forks++;
}

static void count_forks(void)
{
    pthread_atfork(NULL, NULL, on_fork);
}

bool client_is_ours(const struct cloche_client *client)
{
    return client->forks == forks;
}

int check_ours(const struct cloche_client *client, struct error *err)
{
    if (client_is_ours(client))
        return 0;
    error_set(err, -EINVAL, "the client was opened before fork(2)");
    return error_hint(err, "open another in the child"), -EINVAL;
}

/* In the child: its descriptors, and nothing that the parent would notice or another thread may
 * have held when it was copied. */
static void close_copies(struct cloche_client *client)
{
    for (size_t i = 0; i < client->endpoints_count; i++) {
        for (struct cloche_connection *link = client->endpoints[i].idle; link; link = link->next)
            close_fd(steal_fd(&link->fd));
    }
    close_fd(steal_fd(&client->wake.fd));
    if (client->loop)
        close_fd(rpc_loop_fd(client->loop));
}

/* ---- the loop, and the thread that runs it ---- */

static void on_wake(struct rpc_watch *watch, uint32_t events _unused_)
{
    struct cloche_client *client =
        (struct cloche_client *)((char *)watch - offsetof(struct cloche_client, wake));
    uint64_t count;

    while (read(watch->fd, &count, sizeof(count)) < 0 && errno == EINTR)
        ;
    client_lock(client);
    client->woken = false;
    client_unlock(client);
    async_take(client);
    subscriptions_take(client);
}

static void set_runner(struct cloche_client *client, bool running)
{
    client_lock(client);
    client->dispatching = running;
    client->runner = pthread_self();
    client_unlock(client);
}

bool client_in_loop(const struct cloche_client *client)
{
    return client->dispatching && pthread_equal(client->runner, pthread_self());
}

static bool is_stopping(struct cloche_client *client)
{
    client_lock(client);
    bool stopping = client->stopping;
    client_unlock(client);
    return stopping;
}

static void *run_loop(void *data)
{
    struct cloche_client *client = data;

    set_runner(client, true);
    while (!is_stopping(client))
        rpc_loop_run_once(client->loop, -1);
    set_runner(client, false);
    return NULL;
}

/* The caller's signals are not for our thread. */
static int start_thread(struct cloche_client *client)
{
    sigset_t all, before;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int r = pthread_create(&client->thread, NULL, run_loop, client);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    client->threaded = r == 0;
    return -r;
}

int client_wake(struct cloche_client *client)
{
    uint64_t one = 1;
    int r = 0;

    if (!client->settings.polled && !client->threaded && !client->stopping)
        r = start_thread(client);
    if (r == 0 && !client->woken) {
        client->woken = true;
        while (write(client->wake.fd, &one, sizeof(one)) < 0 && errno == EINTR)
            ;
    }
    return r;
}

static int make_loop(struct cloche_client *client, struct error *err)
{
    int r = rpc_loop_create(&client->loop, err);

    if (r < 0)
        return r;
    client->wake.callback = on_wake;
    client->wake.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    r = client->wake.fd < 0 ? -errno : rpc_loop_watch(client->loop, &client->wake, EPOLLIN);
    return r < 0 ? error_errno(err, -r, "make an event loop") : 0;
}

int cloche_client_fd(struct cloche_client *client)
{
    return client->settings.polled ? rpc_loop_fd(client->loop) : -1;
}

void cloche_client_dispatch(struct cloche_client *client)
{
    client_lock(client);
    bool within = client_in_loop(client);
    client_unlock(client);
    if (!client->settings.polled || within || !client_is_ours(client))
        return;
    set_runner(client, true);
    rpc_loop_dispatch(client->loop);
    set_runner(client, false);
}

/* ---- the client ---- */

static void init_locks(struct cloche_client *client)
{
    pthread_condattr_t monotonic;

    pthread_mutex_init(&client->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&client->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

/* Two or more that this process may use. */
static bool has_processors(void)
{
    cpu_set_t set;

    return sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 1;
}

int cloche_client_open(const struct cloche_client_settings *settings, struct cloche_client **ret,
                       struct cloche_error *error)
{
    struct cloche_client *client = xnew(struct cloche_client);
    _cleanup_error_ struct error err = ERROR_INIT;

    static pthread_once_t counting = PTHREAD_ONCE_INIT;

    pthread_once(&counting, count_forks);
    client->forks = forks;
    client->wake.fd = -1;
    init_locks(client);
    async_init(client);
    if (getrandom(&client->random, sizeof(client->random), GRND_NONBLOCK) < 0)
        client->random = monotonic_now();
    client->random |= 1;
    client->may_spin = has_processors();
    int r = take_settings(client, settings, &err);
    if (r == 0)
        r = take_tls(client, &err);
    if (r == 0)
        r = take_endpoints(client, settings ? settings->endpoints : NULL, &err);
    if (r == 0)
        r = make_loop(client, &err);
    if (r < 0) {
        cloche_client_close(client);
        return error_give(error, &err, 0, NULL);
    }
    *ret = client;
    return 0;
}

static void stop_thread(struct cloche_client *client)
{
    client_lock(client);
    __atomic_store_n(&client->stopping, true, __ATOMIC_RELAXED);
    if (client->threaded)
        client_wake(client);
    client_unlock(client);
    if (client->threaded)
        pthread_join(client->thread, NULL);
}

void cloche_client_close(struct cloche_client *client)
{
    if (client && !client_is_ours(client))
        close_copies(client);
    if (!client || !client_is_ours(client))
        return;
    client_end_calls(client);
    stop_thread(client);
    if (client->loop)
        async_finish(client);
    subscriptions_finish(client);
    for (size_t i = 0; i < client->endpoints_count; i++)
        endpoint_finish(&client->endpoints[i]);
    if (client->wake.events)
        rpc_loop_watch(client->loop, &client->wake, 0);
    close_fd(client->wake.fd);
    rpc_loop_destroy(client->loop);
    free(client->endpoints);
    free(client->tls.ca);
    free(client->tls.cert);
    free(client->tls.key);
    free(client->tls.name);
    pthread_cond_destroy(&client->changed);
    pthread_mutex_destroy(&client->lock);
    free(client);
}

/* ---- asynchronous calls: from what came to what the callback takes ---- */

static struct cloche_error *show_error(const struct rpc_outcome *outcome, struct cloche_error *ret)
{
    if (outcome->code == 0)
        return NULL;
    *ret = (struct cloche_error){.code = outcome->code,
                                 .fault = outcome->fault,
                                 .message = (char *)(uintptr_t)error_message(outcome->error),
                                 .hint = outcome->error->hint,
                                 .what = (char *)(uintptr_t)outcome->what,
                                 .where = (char *)(uintptr_t)outcome->where};
    return ret;
}

static void text_done(const struct async_target *target, const struct rpc_outcome *outcome)
{
    cloche_client_done done = (cloche_client_done)target->function;
    struct cloche_error error;
    _cleanup_free_ char *text =
        outcome->code == 0 ? xstrndup(outcome->text, outcome->text_length) : NULL;

    done(target->data, text, outcome->fds, outcome->fds_count, show_error(outcome, &error));
}

int64_t cloche_client_call_async(struct cloche_client *client, const char *method,
                                 const char *params, const struct cloche_call_options *options,
                                 cloche_client_done done, void *data)
{
    struct cloche_call_options taken;
    _cleanup_free_ char *text = NULL;
    struct async_request request = {
        .name = method,
        .options = &taken,
        .raw = true,
        .target = {.done = text_done, .function = (void (*)(void))done, .data = data},
    };

    int r = done ? check_ours(client, NULL) : -EINVAL;
    if (r == 0)
        r = take_async_options(options, &taken, NULL);
    if (r == 0)
        r = check_call(client, method, params, &text, NULL);
    if (r < 0)
        return r;
    request.text = text;
    return async_call(client, &request);
}

static void stub_done(const struct async_target *target, const struct rpc_outcome *outcome)
{
    struct cloche_error error;
    int fd = -1;

    if (target->method->result_fds && outcome->code == 0 && outcome->fds_count != 1) {
        json_free(target->method->result, outcome->result);
        error = (struct cloche_error){.code = -EPROTO,
                                      .message = (char *)"the answer came without its descriptor"};
        target->stub(target->function, target->data, NULL, -1, &error);
        return;
    }
    if (target->method->result_fds && outcome->fds_count == 1)
        fd = steal_fd(&outcome->fds[0]);
    target->stub(target->function, target->data, outcome->result, fd, show_error(outcome, &error));
}

int64_t rpc_stub_call_async(struct cloche_client *client, const struct json_method *method,
                            const void *params, int fd, const struct cloche_call_options *options,
                            rpc_stub_done call, void (*function)(void), void *data)
{
    struct cloche_call_options taken;
    const struct async_request request = {
        .method = method,
        .params = params,
        .text = params || !method->params ? NULL : "{}",
        .options = &taken,
        .target = {.done = stub_done, .stub = call, .function = function, .data = data},
    };

    int r = function ? check_ours(client, NULL) : -EINVAL;
    if (r == 0)
        r = take_stub_options(options, &taken, NULL);
    if (r == 0)
        r = take_async_options(options, &taken, NULL);
    if (r < 0)
        return r;
    taken.fds = &fd;
    taken.fds_count = fd >= 0;
    return async_call(client, &request);
}

bool cloche_client_cancel(struct cloche_client *client, int64_t number)
{
    return async_cancel(client, number);
}
