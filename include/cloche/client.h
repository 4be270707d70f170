/*
 * libcloche-rpc, client side: remote methods that are called as functions are.
 *
 *     struct cloche_client *client;
 *     struct cloche_container_summaries *list;
 *     struct cloche_error error = {0};
 *
 *     if (cloche_client_open(NULL, &client, &error) < 0 ||
 *         cloche_container_list(client, NULL, &list, &error) < 0)
 *         fprintf(stderr, "%s\n", error.message);
 *
 * Such functions, one per method and kind, are in <cloche/management.h>, which is generated from
 * the schemas; this header has what is behind them: the client.
 *
 * A client stands for a set of endpoints, servers that are as good as each other, and keeps some
 * connections to each. A call goes to one of them, random or the least busy. An endpoint that
 * breaks (nobody listens, connections end, answers do not come) is taken out and asked for a sign
 * of life (rpc.ping) from time to time, less and less often, until it gives one.
 *
 * Deadlines. The time-out of a call covers all of it: waiting for a connection, making one,
 * sending, retries, the answer. What is left of it travels with the request, so that the server can
 * stop, too.
 *
 * Retries. A call that surely did not reach a server whole goes to another endpoint, whatever it
 * is, and so does one that was refused for want of room (errors -9 and -12 of cloche-rpc(7)) while
 * there is an endpoint that has not refused it. One that may have been done is sent again only when
 * its method is declared idempotent; it ends with -ECONNRESET else, and may or may not have been
 * done. Nothing is begun to be sent after the deadline.
 *
 * Results. Functions return 0 (or something useful and non-negative) or -errno. Of the numbers
 * these can be relied on: -ETIMEDOUT the deadline passed, -ECONNRESET the connection ended
 * meanwhile, -ECONNREFUSED no endpoint answers (with fail_fast), -ECANCELED, -EPROTO the answer was
 * not understood, -EMFILE no descriptor is left for that of the answer, -ENOBUFS too many calls
 * wait, -EFBIG the request is too long, -EINVAL; an error
 * answer has the errno that fits it and its own code in `fault`. *ret is written on success only. A
 * want of memory ends the calling process (abort(3)).
 *
 * Structures. Those with a `size` may get members in later versions, at their end. The caller sets
 * `size` to sizeof of the structure and all that it does not use to zero, which is the default of
 * every member; programs that were built with fewer members go on working. -EINVAL without a size;
 * -E2BIG when a member that this library does not know is not zero. Strings and lists given are
 * borrowed for the call.
 *
 * Threads. All functions may be called from any thread, but for cloche_client_close(), which is the
 * last one. A synchronous call writes and reads in the calling thread, on a connection that it has
 * for itself meanwhile. Callbacks run in the client's own thread, which is started when the first
 * asynchronous call is made or an endpoint breaks; with `polled` there is none, and they run in
 * cloche_client_dispatch(), which one thread at a time may call. A client is for the process that
 * opened it: in a child of fork(2) its functions return -EINVAL, and cloche_client_close() closes
 * its descriptors there and nothing else.
 */
#ifndef CLOCHE_CLIENT_H
#define CLOCHE_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(default)

/* ---- errors ---------------------------------------------------------------------------------- */

/* Zeroed before its first use. Functions take NULL where nobody wants to know. Its size is for
 * good: what later versions know takes the place of `reserved`. */
struct cloche_error {
    int code;      /* -errno; 0: none */
    int fault;     /* code of the error answer (cloche-rpc(7)); 0: none came */
    char *message; /* for a person, one line; owned; NULL: none */
    char *hint;    /* what to try; owned; may be NULL */
    char *what;    /* with a fault: its code in a word, notFound ...; owned; may be NULL */
    char *where;   /* with a fault: the method; owned; may be NULL */
    void *reserved[4];
};

void cloche_error_finish(struct cloche_error *error); /* it can be used again then */

/* ---- maps ------------------------------------------------------------------------------------ */

/* From strings to strings; where the schema says so the values are JSON text. */
struct cloche_string_map {
    char **keys;
    char **values;
    size_t count;
};

/* The value, or NULL. map may be NULL. */
const char *cloche_string_map_get(const struct cloche_string_map *map, const char *key);

/* ---- the client ------------------------------------------------------------------------------ */

struct cloche_client;

enum cloche_client_balance {
    CLOCHE_CLIENT_LEAST_BUSY, /* the one with the fewest calls of this client; any of several */
    CLOCHE_CLIENT_RANDOM,
};

/* Of messages, on the wire. */
enum cloche_encoding {
    CLOCHE_ENCODING_JSON,
    CLOCHE_ENCODING_CBOR, /* where the server can; asked when a connection is made */
};

#define CLOCHE_NO_TIMEOUT UINT64_MAX

struct cloche_client_settings {
    size_t size;

    /* "/run/cloche/cloche.sock", "unix:PATH", "tcp:ADDRESS:PORT", "tcp:[ADDRESS]:PORT" (numbers, no
     * names), "tls:HOST:PORT" (over the program cloche-dial: -ENOENT where it is not installed);
     * ends with NULL. NULL: $CLOCHE_SOCKET, else /run/cloche/cloche.sock. At most
     * CLOCHE_CLIENT_ENDPOINTS_MAX. */
    const char *const *endpoints;

    /* To each endpoint at most so many for synchronous calls, so many for asynchronous ones, and so
     * many for asynchronous ones without a time-out; made when they are needed. 0: 4. Asynchronous
     * calls share them, on each so many as the server takes at a time, less one (63 of our own
     * servers); more wait in the client. */
    unsigned connections;

    enum cloche_client_balance balance;
    enum cloche_encoding encoding;

    /* There is no thread; the caller polls cloche_client_fd(). */
    bool polled;

    /* When no endpoint is known to live, and another look at them fails, calls end with
     * -ECONNREFUSED. Without it they wait until their deadline for one to come back. */
    bool fail_fast;

    uint64_t timeout_ms;         /* of calls that name none; 0: 30000 */
    uint64_t attempt_timeout_ms; /* an idempotent call that is not answered for so long is sent
                                    to another endpoint, too; 0: never */
    uint64_t
        connect_timeout_ms;  /* of a connection, its first answer, and of a sign of life; 0: 1000 */
    uint64_t probe_first_ms; /* until the first look at a broken endpoint, doubled from one to */
    uint64_t probe_most_ms;  /* the next, less a random part up to half; 0: 20, 5000 */
    unsigned attempts;       /* times that a call is sent at most; 0: 16 */
    unsigned waiting;        /* asynchronous calls in the client at most; 0: 65536 */

    /* Of tls: endpoints: files in PEM, whose paths are absolute. */
    const char *tls_ca;             /* authorities to trust; NULL: those of the system */
    const char *tls_cert, *tls_key; /* to show; both or none */
    const char *tls_name; /* that the server's certificate has to be for; NULL: the host */
};

enum { CLOCHE_CLIENT_ENDPOINTS_MAX = 64, CLOCHE_CLIENT_CONNECTIONS_MAX = 1024 };

/* Connects nowhere yet, and does not block. settings may be NULL: all defaults. -EINVAL: an
 * endpoint that is none, or a number out of range. */
int cloche_client_open(const struct cloche_client_settings *settings, struct cloche_client **ret,
                       struct cloche_error *error);

/* Calls end with -ECANCELED before it returns, synchronous ones of other threads, too; none may be
 * begun any more, no connection be taken, and it is not for callbacks. NULL is nothing. */
void cloche_client_close(struct cloche_client *client);

/* With `polled`: readable when cloche_client_dispatch() has something to do. -1 without. */
int cloche_client_fd(struct cloche_client *client);
/* Does what there is to do, callbacks among it, and does not block. Nothing within a callback. */
void cloche_client_dispatch(struct cloche_client *client);

/* ---- calls ----------------------------------------------------------------------------------- */

struct cloche_connection;

/* How far a call is. */
struct cloche_progress {
    uint64_t done, total; /* total 0: not known */
    const char *unit;     /* what is counted: bytes, layers; NULL: not told */
    const char *text;     /* what is being done; NULL: not told */
};

/* All zero: the client's time-out, no descriptors, any connection. */
struct cloche_call_options {
    size_t size;
    uint64_t timeout_ms; /* 0: the client's, or none for a method that takes as long as it wants;
                            CLOCHE_NO_TIMEOUT: none */
    const int *fds;      /* that go with the request; they stay the caller's; by name only */
    size_t fds_count;
    /* Room for descriptors of the answer, which become the caller's, and how much there is, then
     * how many came; more are an error. Synchronous calls by name only (else -EINVAL): generated
     * functions have arguments for them. */
    int *ret_fds;
    size_t *ret_fds_count;
    struct cloche_connection *connection; /* synchronous only: this one, and no other */
    bool idempotent;                      /* may be sent again, whatever the schema says */
    /* Any number of times before the call ends, in the calling thread or that of the callback.
     * NULL: the server is not asked to tell. */
    void (*progress)(void *data, const struct cloche_progress *progress);
    void *progress_data;
    struct cloche_cancel *cancel; /* synchronous only: ends the call from another thread; NULL */
};

/* A method by its name, its parameters and result as JSON text. params NULL: none. *ret_result is
 * free(3)'s. ret_result may be NULL, options too. Blocks, not longer than the time-out. */
int cloche_client_call(struct cloche_client *client, const char *method, const char *params,
                       const struct cloche_call_options *options, char **ret_result,
                       struct cloche_error *error);

/* From any thread: the synchronous calls that are being made, and the waits for a connection, end
 * with -ECANCELED, and the server is told by the end of their connections. A connection that is
 * being made is waited for, so that it may take connect_timeout_ms. Later calls are as ever. */
void cloche_client_interrupt(struct cloche_client *client);

/* The same for chosen calls, any number, at a time or one after the other: those that name it in
 * their options. It is for one client, and is destroyed when no call has it any more. */
struct cloche_cancel;
struct cloche_cancel *cloche_cancel_create(struct cloche_client *client);
/* From any thread, for good: calls that are begun with it later end at once. */
void cloche_cancel_fire(struct cloche_cancel *cancel);
void cloche_cancel_destroy(struct cloche_cancel *cancel); /* NULL is nothing */

/* result: JSON text, valid in the callback; NULL with an error. error: NULL with a result. fds: of
 * the answer; those that the callback sets to -1 are its own, the others are closed. */
typedef void (*cloche_client_done)(void *data, const char *result, int *fds, size_t fds_count,
                                   const struct cloche_error *error);

/* Returns at once: the call's number (> 0), for cloche_client_cancel(), or -errno, and there will
 * be no callback: -ENOBUFS with as many calls as `waiting` allows, or 256 MiB of parameters,
 * -EFBIG, -EINVAL. done is called
 * exactly once, and never from within this function: with the result, the server's error, or what
 * went wrong. In it anything may be called that does not block. */
int64_t cloche_client_call_async(struct cloche_client *client, const char *method,
                                 const char *params, const struct cloche_call_options *options,
                                 cloche_client_done done, void *data);

/* The call's callback comes soon, with -ECANCELED unless the call had ended by then; the server is
 * told. false: there is no such call (any more). */
bool cloche_client_cancel(struct cloche_client *client, int64_t number);

/* ---- subscriptions -------------------------------------------------------------------------- */

/* What happens at a server, as it happens. A subscription has a connection of its own. When that
 * ends, or is silent, it is made again, to the same endpoint or another, and goes on behind the
 * last event that was seen; what could not be told is told as lost. */
struct cloche_subscription;

struct cloche_subscription_event {
    uint64_t sequence; /* rises by one from event to event, wanted or not, within a boot */
    const char *boot;  /* of the server that counts */
    const char *event; /* JSON text */
};

/* In place of `count` events from the number `from` on, wanted or not. */
struct cloche_subscription_lost {
    uint64_t from, count;
    const char *boot;   /* whose numbers these are */
    const char *reason; /* slow: we have not read in time; gone: it does not keep them any more;
                           restarted: another server answers, which counts anew; what the earlier
                           one had is lost, too, and nobody knows how much */
};

enum cloche_subscription_state {
    CLOCHE_SUBSCRIPTION_LIVE, /* a server has taken it */
    CLOCHE_SUBSCRIPTION_CUT,  /* the connection has ended, and is made again */
    CLOCHE_SUBSCRIPTION_OVER, /* the server does not want it, and is not asked again */
};

/* Strings are valid in the callback. It runs where those of asynchronous calls do, one at a time;
 * while it does, events wait at the server. */
typedef void (*cloche_event_callback)(void *data, const struct cloche_subscription_event *event);
typedef void (*cloche_lost_callback)(void *data, const struct cloche_subscription_lost *lost);

struct cloche_subscribe_options {
    size_t size;
    const char *topic; /* the method is TOPIC.subscribe; NULL: events */
    /* error: why it is cut or over, else NULL. NULL: not told. */
    void (*changed)(void *data, enum cloche_subscription_state state,
                    const struct cloche_error *error);
};

/* Does not block: no server is asked yet. params: of TOPIC.subscribe, a JSON object; NULL: what
 * happens from now on. `since` and `boot` in it go on where an earlier process was (the last
 * sequence + 1, and its boot). options and on_lost may be NULL. -EINVAL. */
int cloche_client_subscribe(struct cloche_client *client, const char *params,
                            const struct cloche_subscribe_options *options,
                            cloche_event_callback on_event, cloche_lost_callback on_lost,
                            void *data, struct cloche_subscription **ret,
                            struct cloche_error *error);

/* Also from its own callbacks. No callback of it begins any more, and none runs in another thread,
 * when it returns. Those that are left end with the client, without a word. NULL is nothing. */
void cloche_subscription_end(struct cloche_subscription *subscription);

/* ---- connections of one's own ---------------------------------------------------------------- */

/* A connection for the caller alone, until it puts it back: calls that name it in their options are
 * made there one after the other, and are neither moved nor sent again. It may block until there is
 * one, not longer than the time-out (0: the client's). -ETIMEDOUT, or -ECONNREFUSED with fail_fast.
 */
int cloche_client_get(struct cloche_client *client, uint64_t timeout_ms,
                      struct cloche_connection **ret, struct cloche_error *error);
void cloche_client_put(struct cloche_client *client, struct cloche_connection *connection);

/* ---- what is going on ------------------------------------------------------------------------ */

struct cloche_client_counts {
    uint64_t calls;    /* begun */
    uint64_t answered; /* ended with a result */
    uint64_t errors;   /* ended with an error answer */
    uint64_t timeouts, cancelled;
    uint64_t lost;    /* ended for want of a connection, or with one */
    uint64_t retries; /* sent again, or to another endpoint */
    uint64_t late;    /* answers that came after their call had ended; dropped */
    uint64_t in_flight;
    uint64_t bytes_in, bytes_out;
    uint64_t p50_ns, p90_ns, p99_ns, slowest_ns; /* from call to answer, to a fifth */
};

enum cloche_endpoint_state {
    CLOCHE_ENDPOINT_IN,     /* takes calls */
    CLOCHE_ENDPOINT_OUT,    /* is broken */
    CLOCHE_ENDPOINT_PROBED, /* was broken, and is being looked at */
};

struct cloche_endpoint_counts {
    enum cloche_endpoint_state state;
    uint64_t busy;        /* calls on their way to it */
    uint64_t connections; /* open */
    uint64_t calls;       /* sent to it */
    uint64_t connects;    /* connections made, so far */
    uint64_t breaks;      /* times that it was taken out */
    uint64_t failures;    /* in a row */
};

/* size: of *ret, so that later versions may know more. They do not block. */
void cloche_client_counts(struct cloche_client *client, struct cloche_client_counts *ret,
                          size_t size);
/* index: of the settings' endpoints. -ENOENT: there are fewer. */
int cloche_client_endpoint(struct cloche_client *client, size_t index,
                           struct cloche_endpoint_counts *ret, size_t size);

enum cloche_metrics_format {
    CLOCHE_METRICS_JSON,
    CLOCHE_METRICS_OPEN, /* OpenMetrics text, with its end line */
};

/* All of it as text, free(3)'s. */
char *cloche_client_metrics(struct cloche_client *client, enum cloche_metrics_format format);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif
