/*
 * Servers that are killed, and clients that must not mind, for test_rpc_chaos.py.
 *
 *     rpc_chaos server ENDPOINT LOG           answers; writes down what may be done only once
 *     rpc_chaos clients ENDPOINT...           8 clients; what became of their calls, as JSON
 *     rpc_chaos many CALLS WIDTH ENDPOINT...  so many calls; the memory before and after, as JSON
 *
 * An endpoint is a path, or tcp:127.0.0.1:PORT. The clients measure their memory when they are sent
 * a line, and end at the next: all endpoints are to be there then, and stay.
 *
 * Every call carries a number of its own, which its answer must bring back. Each call has a record:
 * how often it has ended, when, and how.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/socket.h>
#include <base/text.h>
#include <cloche/client.h>
#include <rpc/loop.h>
#include <rpc/server.h>
#include <schema/management.h>

enum {
    CLIENTS = 8,
    THREADS = 2,      /* of a client with synchronous calls */
    WIDTH = 16,       /* calls in flight of one with asynchronous ones */
    SLACK_MS = 3000,  /* beyond the deadline, on a machine that is busy with other things */
    LONG_MS = 20000,  /* a deadline that leaves time for another endpoint */
    CONNECT_MS = 400, /* servers are stopped for longer */
    CALM_MS = 15000,  /* until all endpoints are in again when nothing breaks them any more */
    CANCEL_EVERY = 50,
    WARM_UP = 5, /* the first part of many calls that memory may grow in: one in so many */
};

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void die(const char *what, const char *why)
{
    fprintf(stderr, "rpc_chaos: %s: %s\n", what, why ? why : "");
    exit(EXIT_FAILURE);
}

/* ---- the server ---- */

struct later {
    struct rpc_timer timer;
    struct rpc_request *request;
    char *text;
};

static struct rpc_loop *loop;
static int log_fd;
static unsigned seed;

static void answer(struct rpc_request *request, const char *text)
{
    struct api_container_created result = {.id = (char *)(uintptr_t)text};

    rpc_reply(request, &result, NULL, 0);
}

static void on_time(struct rpc_timer *timer)
{
    struct later *later = (struct later *)((char *)timer - offsetof(struct later, timer));

    answer(later->request, later->text);
    free(later->text);
    free(later);
}

/* Most at once, some a little later, a few much later. */
static void answer_some_time(struct rpc_request *request, const char *text)
{
    int dice = rand_r(&seed) % 100;

    if (dice < 70) {
        answer(request, text);
        return;
    }
    struct later *later = xnew(struct later);
    *later =
        (struct later){.timer = {.callback = on_time}, .request = request, .text = xstrdup(text)};
    uint64_t ms = (uint64_t)(dice < 97 ? rand_r(&seed) % 20 : rand_r(&seed) % 300);
    rpc_loop_set_timer(loop, &later->timer, rpc_loop_update_now(loop) + ms * 1000000);
}

static void on_read(struct rpc_request *request, const void *params, void *context _unused_)
{
    answer_some_time(request, ((const struct api_container_ref *)params)->container);
}

/* It is done when it is written down: a file that is only appended to outlives us. */
static void on_write(struct rpc_request *request, const void *params, void *context _unused_)
{
    const struct api_container_ref *ref = params;
    char line[64];
    int length = snprintf(line, sizeof(line), "%s\n", ref->container);

    if (write(log_fd, line, (size_t)length) != length)
        die("write", strerror(errno));
    answer_some_time(request, ref->container);
}

static const struct json_method read_type = {.name = "read",
                                             .params = &api_container_ref_type,
                                             .result = &api_container_created_type,
                                             .idempotent = true};
static const struct json_method write_type = {
    .name = "write", .params = &api_container_ref_type, .result = &api_container_created_type};

static int listen_at(const char *endpoint, struct error *err)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;

    if (!text_starts_with(endpoint, "tcp:")) {
        unlink(endpoint);
        return socket_listen_unix(endpoint, SOCK_STREAM, 0600, err);
    }
    address.sin_port = htons((uint16_t)atoi(strrchr(endpoint, ':') + 1));
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 64) < 0)
        return error_errno(err, errno, "listen at %s", endpoint);
    return fd;
}

static void serve(const char *endpoint, const char *log)
{
    static const struct rpc_method methods[] = {{&read_type, on_read}, {&write_type, on_write}};
    _cleanup_error_ struct error err = ERROR_INIT;
    struct rpc_server *server;

    seed = (unsigned)getpid();
    log_fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    int fd = listen_at(endpoint, &err);
    if (log_fd < 0 || fd < 0 || rpc_loop_create(&loop, &err) < 0 ||
        rpc_server_create(loop, NULL, &server, &err) < 0 ||
        rpc_server_add_methods(server, methods, ARRAY_SIZE(methods), &err) < 0 ||
        rpc_server_listen(server, fd, NULL, &err) < 0)
        die("serve", error_message(&err));
    if (write(STDOUT_FILENO, "ready\n", 6) != 6)
        die("serve", "nobody waits for us");
    for (;;)
        rpc_loop_run_once(loop, -1);
}

/* ---- what became of the calls ---- */

struct tally {
    _Atomic uint64_t begun, ended, answered, timeouts, resets, cancelled;
    _Atomic uint64_t twice, wrong, late, unexpected, lost_reads;
    _Atomic uint64_t slowest_ns;
};

static struct tally tally;
static _Atomic uint64_t next_number;
static _Atomic bool over;

struct record {
    struct runner *runner;
    _Atomic int ends;
    _Atomic bool free; /* may be used for another call */
    bool is_read;
    uint64_t number, begun, deadline;
};

/* A client and its calls. */
struct runner {
    size_t index;
    struct cloche_client *client;
    pthread_t threads[THREADS];
    unsigned seed;
    _Atomic int in_flight;
};

static void unexpected(const struct record *record, int code, const char *message)
{
    if (tally.unexpected++ < 10)
        fprintf(stderr, "rpc_chaos: %s %llu: %d: %s\n", record->is_read ? "read" : "write",
                (unsigned long long)record->number, code, message ? message : "");
}

static void check_result(const struct record *record, const char *result)
{
    char expected[64];

    snprintf(expected, sizeof(expected), "{\"id\":\"%llu\"}", (unsigned long long)record->number);
    if (!text_equal(result, expected))
        tally.wrong++;
    tally.answered++;
}

static void ended(struct record *record, const char *result, const struct cloche_error *why)
{
    uint64_t now = now_ns();

    if (record->ends++)
        tally.twice++;
    tally.ended++;
    if (now > record->deadline + SLACK_MS * UINT64_C(1000000))
        tally.late++;
    if (now - record->begun > tally.slowest_ns)
        tally.slowest_ns = now - record->begun;
    if (result)
        check_result(record, result);
    else if (why->code == -ECANCELED)
        tally.cancelled++;
    else if (record->is_read && record->deadline - record->begun >= LONG_MS * UINT64_C(1000000)) {
        tally.lost_reads++; /* an endpoint lived all the time */
        unexpected(record, why->code, why->message);
    } else if (why->code == -ETIMEDOUT)
        tally.timeouts++;
    else if (why->code == -ECONNRESET && !record->is_read)
        tally.resets++;
    else
        unexpected(record, why->code, why->message);
}

static struct cloche_call_options begin(struct runner *runner, struct record *record, char *params,
                                        size_t size)
{
    static const uint64_t timeouts[] = {LONG_MS, 2000, 500, 50};
    uint64_t timeout_ms = timeouts[rand_r(&runner->seed) % 4];

    *record = (struct record){.runner = runner,
                              .is_read = rand_r(&runner->seed) % 2,
                              .number = next_number++,
                              .begun = now_ns()};
    record->deadline = record->begun + timeout_ms * 1000000;
    snprintf(params, size, "{\"container\":\"%llu\"}", (unsigned long long)record->number);
    tally.begun++;
    return (struct cloche_call_options){.size = sizeof(struct cloche_call_options),
                                        .timeout_ms = timeout_ms,
                                        .idempotent = record->is_read};
}

/* ---- clients whose calls block ---- */

static void *call_and_wait(void *data)
{
    struct runner *runner = data;
    struct runner own = {.client = runner->client, .seed = runner->seed++};

    while (!over) {
        struct cloche_error error = {0};
        struct record record;
        char params[64], *result = NULL;
        const struct cloche_call_options options = begin(&own, &record, params, sizeof(params));
        int r = cloche_client_call(own.client, record.is_read ? "read" : "write", params, &options,
                                   &result, &error);
        ended(&record, r == 0 ? result : NULL, &error);
        free(result);
        cloche_error_finish(&error);
        poll(NULL, 0, rand_r(&own.seed) % 3);
    }
    return NULL;
}

/* ---- clients whose calls call back ---- */

static void on_done(void *data, const char *result, int *fds _unused_, size_t fds_count _unused_,
                    const struct cloche_error *why)
{
    struct record *record = data;
    struct runner *runner = record->runner;

    ended(record, result, why);
    record->free = true;
    runner->in_flight--;
}

static struct record *find_record(struct record *records, size_t count, struct runner *runner)
{
    size_t first = (size_t)rand_r(&runner->seed) % count;

    for (size_t i = 0; i < count; i++) {
        struct record *record = &records[(first + i) % count];
        if (!record->begun || record->free)
            return record;
    }
    return NULL;
}

static void dispatch(struct runner *runner, int ms)
{
    struct pollfd ready = {.fd = cloche_client_fd(runner->client), .events = POLLIN};

    if (poll(&ready, 1, ms) > 0 && ready.fd >= 0)
        cloche_client_dispatch(runner->client);
}

static void *call_back(void *data)
{
    struct runner *runner = data;
    static __thread struct record records[4 * WIDTH];
    unsigned count = 0;

    while (!over || runner->in_flight > 0) {
        struct record *record = find_record(records, ARRAY_SIZE(records), runner);
        char params[64];
        dispatch(runner, runner->in_flight >= WIDTH || over ? 5 : 0);
        if (over || runner->in_flight >= WIDTH || !record)
            continue;
        const struct cloche_call_options options = begin(runner, record, params, sizeof(params));
        runner->in_flight++;
        int64_t number = cloche_client_call_async(
            runner->client, record->is_read ? "read" : "write", params, &options, on_done, record);
        if (number < 0)
            die("call", strerror((int)-number));
        if (++count % CANCEL_EVERY == 0)
            cloche_client_cancel(runner->client, number);
        if (count % 8 == 0)
            dispatch(runner, 1);
    }
    return NULL;
}

/* ---- all together ---- */

static void open_client(struct runner *runner, const char *const *endpoints)
{
    struct cloche_error error = {0};
    const struct cloche_client_settings settings = {
        .size = sizeof(settings),
        .endpoints = endpoints,
        .connections = 2,
        .balance = runner->index % 2 ? CLOCHE_CLIENT_RANDOM : CLOCHE_CLIENT_LEAST_BUSY,
        .polled = runner->index >= CLIENTS * 3 / 4,
        .encoding = runner->index / 2 % 2 ? CLOCHE_ENCODING_CBOR : CLOCHE_ENCODING_JSON,
        .attempt_timeout_ms = 1000,
        .connect_timeout_ms = CONNECT_MS,
        .probe_first_ms = 5,
        .probe_most_ms = 200,
    };

    runner->seed = (unsigned)runner->index + 1;
    if (cloche_client_open(&settings, &runner->client, &error) < 0)
        die("open", error.message);
}

static long memory_kb(void)
{
    _cleanup_fclose_ FILE *file = fopen("/proc/self/status", "re");
    char line[128];
    long kb = 0;

    while (file && fgets(line, sizeof(line), file)) {
        if (sscanf(line, "VmRSS: %ld", &kb) == 1)
            break;
    }
    return kb;
}

static size_t open_fds(void)
{
    DIR *folder = opendir("/proc/self/fd");
    size_t count = 0;

    while (folder && readdir(folder))
        count++;
    if (folder)
        closedir(folder);
    return count;
}

/* Endpoints of any client that are not in. */
static unsigned count_out(struct runner *runners)
{
    struct cloche_endpoint_counts counts;
    unsigned out = 0;

    for (size_t i = 0; i < CLIENTS; i++) {
        for (size_t k = 0;
             cloche_client_endpoint(runners[i].client, k, &counts, sizeof(counts)) == 0; k++)
            out += counts.state != CLOCHE_ENDPOINT_IN;
    }
    return out;
}

/* Nobody calls any more, and still all are looked at until they are in. */
static unsigned wait_until_in(struct runner *runners)
{
    uint64_t until = now_ns() + CALM_MS * UINT64_C(1000000);

    while (count_out(runners) && now_ns() < until) {
        for (size_t i = 0; i < CLIENTS; i++)
            dispatch(&runners[i], 1);
        poll(NULL, 0, 5);
    }
    return count_out(runners);
}

/* What the process has, and what it had. */
struct sizes {
    long memory_before, memory_after;
    size_t fds_first, fds_after, fds_last;
    unsigned out;
};

static void print_tally(const struct sizes *sizes, const struct cloche_client_counts *sum)
{
    printf("{\"begun\":%llu,\"ended\":%llu,\"answered\":%llu,\"timeouts\":%llu,\"resets\":%llu,"
           "\"cancelled\":%llu,"
           "\"twice\":%llu,\"wrong\":%llu,\"late\":%llu,\"unexpected\":%llu,\"lostReads\":%llu,"
           "\"retries\":%llu,\"lateAnswers\":%llu,\"inFlight\":%llu,\"slowestMs\":%llu,"
           "\"memoryBeforeKb\":%ld,\"memoryAfterKb\":%ld,\"endpointsOut\":%u,"
           "\"fdsFirst\":%zu,\"fdsAfter\":%zu,\"fdsLast\":%zu}\n",
           (unsigned long long)tally.begun, (unsigned long long)tally.ended,
           (unsigned long long)tally.answered, (unsigned long long)tally.timeouts,
           (unsigned long long)tally.resets, (unsigned long long)tally.cancelled,
           (unsigned long long)tally.twice, (unsigned long long)tally.wrong,
           (unsigned long long)tally.late, (unsigned long long)tally.unexpected,
           (unsigned long long)tally.lost_reads, (unsigned long long)sum->retries,
           (unsigned long long)sum->late, (unsigned long long)sum->in_flight,
           (unsigned long long)(tally.slowest_ns / 1000000), sizes->memory_before,
           sizes->memory_after, sizes->out, sizes->fds_first, sizes->fds_after, sizes->fds_last);
}

static struct cloche_client_counts sum_up(struct runner *runners)
{
    struct cloche_client_counts sum = {0};

    for (size_t i = 0; i < CLIENTS; i++) {
        struct cloche_client_counts counts;
        cloche_client_counts(runners[i].client, &counts, sizeof(counts));
        sum.retries += counts.retries;
        sum.late += counts.late;
        sum.in_flight += counts.in_flight;
    }
    return sum;
}

static size_t threads_of(size_t index)
{
    return index < CLIENTS / 2 ? THREADS : 1;
}

static void begin_all(struct runner *runners, const char *const *endpoints)
{
    for (size_t i = 0; i < CLIENTS; i++) {
        runners[i].index = i;
        open_client(&runners[i], endpoints);
        for (size_t k = 0; k < threads_of(i); k++)
            pthread_create(&runners[i].threads[k], NULL,
                           i < CLIENTS / 2 ? call_and_wait : call_back, &runners[i]);
    }
}

static void wait_for_line(void)
{
    while (getchar() > '\n')
        ;
}

static void run_clients(const char *const *endpoints)
{
    static struct runner runners[CLIENTS];
    struct sizes sizes = {.fds_first = open_fds()};

    begin_all(runners, endpoints);
    wait_for_line();
    sizes.memory_before = memory_kb();
    wait_for_line();
    over = true;
    for (size_t i = 0; i < CLIENTS; i++) {
        for (size_t k = 0; k < threads_of(i); k++)
            pthread_join(runners[i].threads[k], NULL);
    }
    sizes.memory_after = memory_kb();
    sizes.out = wait_until_in(runners);
    sizes.fds_after = open_fds();
    const struct cloche_client_counts sum = sum_up(runners);
    for (size_t i = 0; i < CLIENTS; i++)
        cloche_client_close(runners[i].client);
    sizes.fds_last = open_fds();
    print_tally(&sizes, &sum);
}

/* ---- many calls ---- */

struct many {
    struct cloche_client *client;
    uint64_t to_begin, to_end, failed;
};

static void begin_one(struct many *many);

static void on_one(void *data, const char *result, int *fds _unused_, size_t fds_count _unused_,
                   const struct cloche_error *why _unused_)
{
    struct many *many = data;

    many->failed += !result;
    many->to_end--;
    if (many->to_begin)
        begin_one(many);
}

static void begin_one(struct many *many)
{
    static const char params[] = "{\"container\":\""
                                 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
                                 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
                                 "\"}";

    many->to_begin--;
    if (cloche_client_call_async(many->client, "read", params, NULL, on_one, many) < 0)
        die("call", "not taken");
}

static void run_some(struct many *many, uint64_t count, uint64_t width)
{
    struct pollfd ready = {.fd = cloche_client_fd(many->client), .events = POLLIN};

    many->to_begin = many->to_end = count;
    for (uint64_t i = 0; i < width && many->to_begin; i++)
        begin_one(many);
    while (many->to_end) {
        poll(&ready, 1, 1000);
        cloche_client_dispatch(many->client);
    }
}

static void run_many(uint64_t count, uint64_t width, const char *const *endpoints)
{
    struct cloche_error error = {0};
    const struct cloche_client_settings settings = {
        .size = sizeof(settings), .endpoints = endpoints, .polled = true, .timeout_ms = 600000};
    struct many many = {0};

    if (cloche_client_open(&settings, &many.client, &error) < 0)
        die("open", error.message);
    run_some(&many, count / WARM_UP, width);
    long before = memory_kb();
    run_some(&many, count - count / WARM_UP, width);
    long after = memory_kb();
    printf("{\"calls\":%llu,\"failed\":%llu,\"memoryBeforeKb\":%ld,\"memoryAfterKb\":%ld}\n",
           (unsigned long long)count, (unsigned long long)many.failed, before, after);
    cloche_client_close(many.client);
}

int main(int argc, char **argv)
{
    const char *mode = argc > 3 ? argv[1] : "";

    signal(SIGPIPE, SIG_IGN);
    if (text_equal(mode, "server"))
        serve(argv[2], argv[3]);
    else if (text_equal(mode, "clients"))
        run_clients((const char *const *)&argv[2]);
    else if (text_equal(mode, "many"))
        run_many(strtoull(argv[2], NULL, 10), strtoull(argv[3], NULL, 10),
                 (const char *const *)&argv[4]);
    else {
        fprintf(stderr, "usage: rpc_chaos server ENDPOINT LOG | clients ENDPOINT... | "
                        "many CALLS WIDTH ENDPOINT...\n");
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}
