/*
 * The inside of a client of several endpoints (include/cloche/client.h).
 *
 * One lock for all that threads share: the states of the endpoints, the connections that lie idle,
 * calls that were handed in. It is never held while anything blocks or a callback runs. What
 * belongs to the loop's thread alone says so.
 */
#ifndef RPC_POOL_H
#define RPC_POOL_H

#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/un.h>

#include <base/buffer.h>
#include <base/error.h>
#include <cloche/client.h>
#include <rpc/channel.h>
#include <rpc/loop.h>
#include <rpc/metrics.h>
#include <rpc/pool.h>
#include <rpc/server.h>

#include "fault.h"

#define NS_PER_MS UINT64_C(1000000)
#define NEVER UINT64_MAX

enum {
    SILENT_MAX = 3,      /* time-outs in a row, without an answer, after which it is looked at */
    GARBLED_MAX = 3,     /* connections in a row that end with nonsense, after which it is out */
    SILENT_MS = 200,     /* for so long one that has not answered in time comes after others */
    SILENT_WEIGHT = 4,   /* as if it had so many calls more for each of them */
    LANE_WIDTH = 64,     /* calls on a connection before another is made */
    LANE_KINDS = 2,      /* of calls with a deadline, and of those without one */
    OWED_MAX = 8,        /* answers that a connection may owe to calls that did not wait */
    EXHAUSTED_MS = 20,   /* until another try when there are no descriptors */
    PROBE_GRACE_MS = 250 /* when a look is due for so long, whoever comes by does it */
};

/* ---- transports: how bytes get to an endpoint */

/* All owned; NULL: none. */
struct tls_settings {
    char *ca, *cert, *key, *name;
};

struct address {
    const struct transport *transport;
    char *path;                     /* owned; of a Unix socket, or a host */
    uint16_t port;                  /* of the host */
    const struct tls_settings *tls; /* the client's */
    struct sockaddr_storage socket;
    socklen_t length;
};

struct transport {
    const char *scheme;
    bool passes_fds;
    /* text: behind the scheme. -EINVAL. */
    int (*parse)(const char *text, struct address *ret, struct error *err);
    /* A stream socket (O_CLOEXEC) that is connected, or, without blocking, may still be about to
     * be: then its first write or read fails. timeout_ms: how long it may take when it may block;
     * 0: it must not. -EMFILE, -ENFILE, -ENOBUFS, -ENOMEM: it is us, not the endpoint. */
    int (*connect)(const struct address *address, uint64_t timeout_ms, struct error *err);
};

/* "unix:PATH", "/PATH", "tcp:ADDRESS:PORT", "tls:HOST:PORT". */
int address_parse(const char *text, struct address *ret, struct error *err);
void address_finish(struct address *address);
bool is_exhaustion(int code); /* of connect above */
/* transport_tls.c */
int tls_parse(const char *text, struct address *ret, struct error *err);
int tls_connect(const struct address *address, uint64_t timeout_ms, struct error *err);

/* ---- endpoints (endpoint.c): all under the lock, but for what says otherwise */

struct lane;
struct cloche_connection;

enum lane_kind {
    LANE_SHORT, /* for calls with a deadline */
    LANE_LONG,
};

/* What a call needs of an endpoint. */
enum endpoint_want {
    WANT_CONNECTION, /* a connection for itself, or room for one */
    WANT_IDLE,       /* one that is there: there are no descriptors for another */
    WANT_LANE,       /* room among others, in the loop's thread */
    WANT_LONG_LANE,  /* the same, for a call that may take as long as it wants */
};

struct endpoint {
    struct cloche_client *client;
    size_t index;
    char *name; /* owned; as the settings have it */
    struct address address;

    enum cloche_endpoint_state state;
    unsigned failures;  /* in a row, without an answer between them */
    unsigned silent;    /* time-outs in a row, the same */
    uint64_t silent_at; /* the last of them */
    unsigned garbled;   /* connections in a row that ended with nonsense */
    bool suspect;       /* taken out for being silent */
    bool unreached;     /* nobody has got through to it since it was broken */
    bool doubted;       /* it is silent, and to be looked at, though it is in */
    bool abandon;       /* its calls are to be moved: the loop's thread sees to it */
    uint64_t probe_due; /* of one that is out */
    char why[160];      /* it was taken out; "" never */

    size_t busy; /* calls */
    struct cloche_connection *idle;
    unsigned connections, lanes_open;
    uint64_t calls, connects, breaks;

    /* of the loop's thread */
    struct lane *lanes;
    unsigned lanes_count[LANE_KINDS]; /* without those that are retired */
    bool full[LANE_KINDS];            /* no lane of the kind has room, and none can be made */
    struct lane *probe;
    struct rpc_timer probe_timer;
};

void endpoint_init(struct endpoint *endpoint, struct cloche_client *client, size_t index);
/* Nobody uses it any more, nor its lanes. */
void endpoint_finish(struct endpoint *endpoint);
/* One that is in, is not among those to avoid, and has what is wanted; *ret_none: none of these is
 * in. */
struct endpoint *endpoint_choose(struct cloche_client *client, enum endpoint_want want,
                                 uint64_t avoid, bool *ret_none);
/* Its place in a set of endpoints. */
uint64_t endpoint_bit(const struct endpoint *endpoint);
/* None is in or being looked at, and of each it is known that nobody gets through to it. */
bool endpoints_all_out(const struct cloche_client *client);
/* A call was refused with that error answer: whether another endpoint may be asked, since nothing
 * was done (the call then avoids this one). The lock is taken here. */
bool endpoint_may_ask_another(struct cloche_client *client, struct endpoint *refused_by, int fault,
                              uint64_t *avoid);
/* A connection of its own that there was to be, or was, is not: who waits for room may go on. */
void endpoint_unreserve(struct endpoint *endpoint);
/* Takes it out: connections end, or (suspect) answers do not come. The lock is taken here. */
void endpoint_break(struct endpoint *endpoint, bool suspect, const char *why);
/* The same, for one to which no connection could be made. The lock is taken here. */
void endpoint_unreached(struct endpoint *endpoint, const char *why);
/* It was to be looked at, and we have no descriptor for it. The lock is taken here. */
void endpoint_put_off(struct endpoint *endpoint);
/* A look at it was too short to tell anything: the next is as far away as this one was. The lock is
 * taken here. */
void endpoint_look_later(struct endpoint *endpoint);
/* Its idle connections are closed: the server has ended them. The lock is taken here. */
void endpoint_forget_idle(struct endpoint *endpoint);
/* A connection ended with nonsense, of which some in a row take it out. The lock is taken here. */
void endpoint_garbled(struct endpoint *endpoint, const char *why);
/* It gave a sign of life. The lock is taken here. */
void endpoint_revive(struct endpoint *endpoint);
/* Somebody looks at it now. */
void endpoint_begin_look(struct endpoint *endpoint);
/* One that is out and may be looked at now, and is marked so; NULL: none. */
struct endpoint *endpoint_claim(struct cloche_client *client, uint64_t now, uint64_t grace);
/* When the next look is due; NEVER. */
uint64_t endpoint_next_probe(const struct cloche_client *client);
/* A call has ended there. timed_out: and nothing came on its connection meanwhile. The lock is
 * taken here. */
void endpoint_ended(struct endpoint *endpoint, bool answered, bool timed_out);

/* ---- the end of synchronous calls from outside (interrupt.c) */

struct cloche_cancel {
    struct cloche_client *client;
    bool fired; /* under the lock */
};

/* A call begins on the link, or it is given to a caller; and has ended. Under the lock. */
void link_enter(struct cloche_connection *link, struct cloche_cancel *cancel);
void link_leave(struct cloche_connection *link);
/* Whether it was shut down meanwhile. The lock is taken here. */
bool link_cancelled(struct cloche_connection *link);
/* A thread begins a synchronous call: -ECANCELED when the client is being closed. */
int client_enter(struct cloche_client *client, struct error *err);
void client_leave(struct cloche_client *client);
/* No synchronous call is left when it returns. */
void client_end_calls(struct cloche_client *client);

/* ---- blocking connections (connection.c is the server's: link.c) */

/* A call of a connection, and what became of it. */
struct link_call {
    const struct json_method *method;
    const void *params; /* of the method's type; NULL: text */
    const char *text;   /* JSON; NULL: none */
    uint64_t deadline;  /* NEVER */
    const int *fds;
    size_t fds_count;
    int *ret_fds; /* NULL: none are wanted */
    size_t *ret_fds_count;
    bool raw;      /* the result is wanted as text */
    void **result; /* NULL: not wanted */
    void (*progress)(void *data, const struct cloche_progress *progress); /* NULL: not wanted */
    void *progress_data;
    int fault;                    /* set: code of an error answer */
    struct fault_details details; /* set with it; the caller's */
    bool answered;                /* set: an answer came, result or error */
    bool unsent;                  /* set: the server cannot have begun with it */
    bool was_idle;                /* set: the connection had been used before */
    bool refused; /* set: the answer is an error about the connection, which has ended */
};

struct cloche_connection {
    struct cloche_connection *next; /* among the idle ones */
    struct endpoint *endpoint;
    int fd;                                         /* -1: broken */
    struct cloche_connection *next_used, **at_used; /* among those that calls are made on */
    struct cloche_cancel *cancel;                   /* of the call; NULL: none */
    bool cancelled;                                 /* and shut down for it: under the lock */
    bool fresh;                                     /* no call of the caller's was made on it yet */
    const struct rpc_codec *codec;
    int64_t last_number;
    uint64_t wait_ns;               /* what the socket's receive time-out is; 0: none */
    unsigned owed;                  /* answers to calls that did not wait for them */
    unsigned spin_pause, spin_step; /* calls until it watches for an answer again, and after that */
    struct buffer in, out;
    size_t searched;
    int fds[2 * RPC_FDS_MAX];
    size_t fds_count;
};

/* Connects; it may block until the deadline. */
int link_open(struct endpoint *endpoint, uint64_t deadline, struct cloche_connection **ret,
              struct error *err);
void link_close(struct cloche_connection *link); /* NULL is nothing */
/* Whether the server has ended it while it lay idle. */
bool link_is_stale(struct cloche_connection *link);
struct timeval link_wait(uint64_t ns); /* for SO_RCVTIMEO */
/* Sends and waits. 0; an error answer's errno with call->fault; -ETIMEDOUT; -ECONNRESET (then the
 * connection is broken); -EPROTO, -EFBIG, -E2BIG; exhaustion, -ETOOMANYREFS: it is us. */
int link_call(struct cloche_connection *link, struct link_call *call, struct error *err);

extern const struct json_method rpc_ping_method;

/* ---- asynchronous calls (async.c, lane.c): of the loop's thread, but for what says otherwise */

/* Whom a call is for. */
struct async_target {
    void (*done)(const struct async_target *target, const struct rpc_outcome *outcome);
    const struct json_method *method;
    rpc_stub_done stub;     /* of `done`: what calls function */
    void (*function)(void); /* the caller's */
    void *data;
};

enum call_state {
    CALL_HANDED_IN, /* not seen by the loop's thread yet */
    CALL_LOOSE,     /* in its hands */
    CALL_READY,     /* to be started at the end of this round */
    CALL_WAITING,   /* for an endpoint, or room on one */
    CALL_SENT,
};

struct async_call {
    struct async_call *next, *previous; /* in the list that its state names */
    struct cloche_client *client;
    struct rpc_timer timer;
    int64_t id;    /* the number that the caller has */
    uint64_t turn; /* among those that wait */
    enum call_state state;
    enum lane_kind kind;
    bool cancelled; /* atomic */
    bool moving, idempotent, raw;
    uint64_t avoid;                /* endpoints that have refused it */
    size_t charged;                /* bytes that count for it */
    struct json_method own_method; /* of a call by name */
    char *own_name;                /* owned */
    const struct json_method *method;
    struct buffer params;
    int fds[RPC_FDS_MAX]; /* owned */
    size_t fds_count;
    uint64_t begun, deadline;
    unsigned attempts;
    void (*progress)(void *data, const struct cloche_progress *progress);
    void *progress_data;
    struct async_target target;
    struct lane *lane;
    int64_t number; /* in the lane */
};

struct call_list {
    struct async_call *first, *last;
    size_t count;
};

/* An asynchronous connection. It takes fewer calls than the server answers at a time, so that
 * rpc.cancel gets through; calls that may take as long as they want have lanes of their own, since
 * others would wait for them. */
struct lane {
    struct lane *next;
    struct endpoint *endpoint;
    struct rpc_channel *channel;
    enum lane_kind kind;
    size_t in_flight;
    bool ready;   /* the server has answered */
    bool retired; /* takes no more calls, and goes with the last */
};

/* The number of a call is its slot and how often that was used. */
struct call_slot {
    struct async_call *call; /* NULL: free */
    uint32_t generation;
    uint32_t next_spare; /* slot, from 1 on; 0: none */
};

struct async_request {
    const struct json_method *method;
    const char *name; /* of a call by name: method is NULL then */
    const void *params;
    const char *text;
    const struct cloche_call_options *options; /* NULL */
    bool raw;
    struct async_target target;
};

/* ---- the table of calls (async_calls.c) */

/* Behind `before`; NULL: first. */
void call_list_insert(struct call_list *list, struct async_call *before, struct async_call *call);
static inline void call_list_append(struct call_list *list, struct async_call *call)
{
    call_list_insert(list, list->last, call);
}
void call_list_remove(struct call_list *list, struct async_call *call);
/* Under the lock. NULL: there is none of that number (any more). */
struct async_call *call_find(struct cloche_client *client, int64_t number);
/* Under the lock: with a number of its own. NULL: there are as many as there may be. */
struct async_call *call_new(struct cloche_client *client);
/* It has ended. The lock is taken here. */
void call_free(struct async_call *call);
/* Under the lock: the loop's thread is to cancel it. */
void call_queue_cancel(struct cloche_client *client, int64_t number);
/* The next of those from *at on, a place that begins with 0; NULL: no more. One that was handed in
 * meanwhile is for the next round, which that began. The lock is taken here. */
struct async_call *call_next_cancelled(struct cloche_client *client, size_t *at);
/* All have ended. */
void calls_finish(struct cloche_client *client);

/* ---- asynchronous calls */

/* From any thread: the call's number, or -errno. */
int64_t async_call(struct cloche_client *client, const struct async_request *request);
/* From any thread. */
bool async_cancel(struct cloche_client *client, int64_t number);
/* The loop's thread was woken: takes what was handed in, and sees to the probes. */
void async_take(struct cloche_client *client);
/* An endpoint is in again, or has room: so many of those that wait may go on. */
void async_go_on(struct cloche_client *client, enum lane_kind kind, size_t most);
/* Something has run out; after a while all that wait may go on. */
void async_again(struct cloche_client *client);
void async_init(struct cloche_client *client);
/* All calls end with -ECANCELED. Nothing else runs any more. */
void async_finish(struct cloche_client *client);

/* A lane with room; -EAGAIN: there is none, or one is just being made; -ECONNREFUSED: the endpoint
 * was taken out; exhaustion: no descriptors here. */
int lane_get(struct endpoint *endpoint, enum lane_kind kind, struct lane **ret, struct error *err);
/* One call less. */
void lane_release(struct lane *lane);
/* No more calls on them: they go when those that they have are done. */
void lanes_retire(struct endpoint *endpoint);
/* Their calls end, and no look at the endpoint goes on. */
void lanes_close(struct endpoint *endpoint);
/* Looks at it if it is doubted. */
void probe_doubted(struct endpoint *endpoint);
void probe_init(struct endpoint *endpoint);
/* Arms the timers of the endpoints that are out. */
void probes_arm(struct cloche_client *client);

/* ---- subscriptions (subscribe.c): of the loop's thread */

/* It was woken: some are new, or ended, or an endpoint is in again. */
void subscriptions_take(struct cloche_client *client);
/* They end without a word. Nothing else runs any more. */
void subscriptions_finish(struct cloche_client *client);

/* ---- the client */

struct cloche_client {
    pthread_mutex_t lock;
    pthread_cond_t changed; /* a connection is idle, an endpoint in or out */
    unsigned waiters;
    struct endpoint *endpoints; /* owned */
    size_t endpoints_count;
    struct cloche_client_settings settings; /* with the defaults filled in; no endpoints */
    struct tls_settings tls;
    uint64_t random;
    struct rpc_metrics metrics;
    struct cloche_connection *used; /* by next_used */
    _Atomic unsigned interrupts;    /* so far */
    _Atomic unsigned callers;       /* threads in synchronous calls */
    _Atomic bool closing;
    unsigned forks; /* before it was opened */
    bool may_spin;  /* there is a processor for us and another for the server */

    struct rpc_loop *loop;
    struct rpc_watch wake;
    bool woken;              /* wake is readable, or about to be */
    bool threaded, stopping; /* the thread runs; is to end */
    pthread_t thread;
    bool dispatching; /* somebody runs the loop: `runner` */
    pthread_t runner;

    struct call_slot *slots; /* owned */
    size_t slots_count, slots_capacity, calls_used;
    uint32_t spare_slot;      /* from 1 on; 0: none */
    size_t bytes;             /* of the parameters of all calls */
    struct async_call *spare; /* by next */
    size_t spare_count;
    struct call_list handed_in;
    struct cloche_subscription *subscriptions; /* owned, by next */
    int64_t *cancels;                          /* owned: numbers */
    size_t cancels_count, cancels_capacity;

    /* of the loop's thread */
    struct call_list ready, waiting[LANE_KINDS];
    uint64_t last_turn;
    struct rpc_task start_task;
    struct rpc_timer again; /* when something had run out */
};

/* Whether it was opened in this process. */
bool client_is_ours(const struct cloche_client *client);
int check_ours(const struct cloche_client *client, struct error *err); /* -EINVAL */
void client_lock(struct cloche_client *client);
void client_unlock(struct cloche_client *client);
/* Under the lock: the loop's thread looks at what there is; starts it when there is none. */
int client_wake(struct cloche_client *client);
/* Whether this thread runs the loop just now. */
bool client_in_loop(const struct cloche_client *client);
uint64_t client_random(struct cloche_client *client); /* under the lock */
uint64_t monotonic_now(void);
/* What is left until the deadline, for poll(2): rounded up, -1 for NEVER. */
int poll_ms(uint64_t deadline);
/* now + the time-out; NEVER. */
uint64_t deadline_after(uint64_t now, uint64_t timeout_ms);
/* When an attempt that begins now is given up, so that there can be another before the deadline. */
uint64_t attempt_deadline(const struct cloche_client *client, uint64_t deadline, bool idempotent,
                          unsigned attempt);
/* The time-out of a call with these options. */
uint64_t client_timeout(const struct cloche_client *client, const struct json_method *method,
                        const struct cloche_call_options *options);

struct rpc_progress;
/* As the public header has it. */
struct cloche_progress show_progress(const struct rpc_progress *progress);
/* What the caller's version of them has, the rest zero. -EINVAL, -E2BIG. NULL: all zero. */
int take_options(const struct cloche_call_options *given, struct cloche_call_options *ret,
                 struct error *err);
/* The same, of a generated function: descriptors are its arguments. */
int take_stub_options(const struct cloche_call_options *given, struct cloche_call_options *ret,
                      struct error *err);
int take_subscribe_options(const struct cloche_subscribe_options *given,
                           struct cloche_subscribe_options *ret, struct error *err);
/* What a call by name brings: -EINVAL for what cannot be one. *ret_params: the text on one line,
 * owned; NULL: none. */
int check_call(const struct cloche_client *client, const char *method, const char *params,
               char **ret_params, struct error *err);

/* Moves err into error (NULL: nowhere), and the details of an error answer (NULL: none came).
 * Returns its code. */
int error_give(struct cloche_error *error, struct error *err, int fault,
               struct fault_details *details);

#endif
