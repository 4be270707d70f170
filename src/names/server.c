/*
 * The loop: what the engine says, what containers ask, what resolvers answer.
 *
 *     control         names_protocol: places and sandboxes
 *     sandbox         its UDP socket: known names are answered at once; the rest becomes a question
 *     question        one UDP socket to a resolver, and the next one when it does not answer
 *     client          a TCP connection of a container: known names are answered at once; the rest
 *                     becomes a question, which goes on over TCP when the answer is cut
 *
 * Ends when the engine's connection is gone and no sandbox is left.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

#include <base/alloc.h>
#include <base/socket.h>
#include <base/text.h>
#include <jail/jail.h>

#include "table.h"

enum {
    QUESTIONS_MAX = 1024,  /* under way */
    QUESTIONS_EACH = 64,   /* of one container, so that others' are asked, too */
    LONG_ANSWERS_MAX = 64, /* of these, over TCP: 64 KiB of memory each */
    CLIENTS_MAX = 256,
    CLIENTS_EACH = 16,
    SANDBOXES_MAX = 4096,
    RESOLVER_TIMEOUT_MS = 2000,
    CLIENT_TIMEOUT_MS = 10000,
    PACKET_MAX = 4096, /* what we take over UDP */
    ANSWER_MAX = 2 + MESSAGE_MAX,
    CLIENT_BUFFER = 2 * ANSWER_MAX, /* holds a whole answer */
    PORT_DNS = 53,
    EVENTS = 32,
};

enum source_kind {
    SOURCE_LISTEN,
    SOURCE_CONTROL,
    SOURCE_UDP,
    SOURCE_TCP,
    SOURCE_MONITOR,
    SOURCE_QUESTION,
    SOURCE_CLIENT,
};

struct source {
    enum source_kind kind;
    int fd;
    void *owner;
};

struct sandbox {
    struct sandbox *next;
    char container[NAMES_ID_SIZE];
    bool may_ask_others;
    struct names_resolver resolvers[NAMES_RESOLVERS_MAX];
    unsigned questions, clients; /* of it, under way */
    struct source udp, tcp, monitor;
};

struct client {
    struct client *next;
    struct sandbox *sandbox;
    struct source source;
    int64_t deadline;
    size_t length; /* of what was read: two bytes of length and the query */
    uint8_t data[2 + PACKET_MAX];
};

struct question {
    struct question *next;
    struct sandbox *sandbox;
    struct client *client;   /* NULL: came over UDP */
    struct sockaddr_in peer; /* then */
    struct message_question question;
    uint16_t id; /* ours */
    unsigned resolver;
    int64_t deadline;
    struct source source;
    uint8_t *answer; /* owned; over TCP: two bytes of length and the answer; else NULL */
    size_t answer_length;
    bool sent; /* the query, over TCP */
    size_t length;
    uint8_t query[PACKET_MAX];
};

struct server {
    int epoll_fd;
    int spare_fd; /* for the moment in which there is no other */
    struct source listen, control;
    struct table table;
    struct sandbox *sandboxes;
    size_t sandboxes_count;
    struct question *questions;
    size_t questions_count;
    struct client *clients;
    size_t clients_count;
    void **garbage; /* owned; what is freed after this round of events */
    size_t garbage_count;
};

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int watch(struct server *server, struct source *source, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = source};

    return epoll_ctl(server->epoll_fd, operation, source->fd, &event) < 0 ? -errno : 0;
}

static void source_open(struct server *server, struct source *source, enum source_kind kind, int fd,
                        void *owner)
{
    *source = (struct source){kind, fd, owner};
    if (fd >= 0 && watch(server, source, EPOLL_CTL_ADD, EPOLLIN) < 0)
        close_fd(steal_fd(&source->fd));
}

/* An event of this round may still point at it: the memory is released after the round. */
static void release_later(struct server *server, void *memory)
{
    server->garbage = xrealloc(server->garbage, server->garbage_count + 1, sizeof(void *));
    server->garbage[server->garbage_count++] = memory;
}

/* --- questions to resolvers ------------------------------------------------------------------- */

static void answer_client(struct server *server, struct client *client, const uint8_t *data,
                          size_t length);

static void question_end(struct server *server, struct question *question)
{
    for (struct question **at = &server->questions; *at; at = &(*at)->next) {
        if (*at != question)
            continue;
        *at = question->next;
        break;
    }
    close_fd(steal_fd(&question->source.fd));
    free(steal_ptr(question->answer));
    server->questions_count--;
    question->sandbox->questions--;
    release_later(server, question);
}

static void reply(struct server *server, struct question *question, uint8_t *data, size_t length)
{
    data[0] = (uint8_t)(question->question.id >> 8);
    data[1] = (uint8_t)question->question.id;
    if (question->client)
        answer_client(server, question->client, data, length);
    else
        (void)sendto(question->sandbox->udp.fd, data, length, MSG_DONTWAIT | MSG_NOSIGNAL,
                     (const struct sockaddr *)&question->peer, sizeof(question->peer));
}

static void reply_failure(struct server *server, struct question *question)
{
    uint8_t data[PACKET_MAX];
    struct message_answer answer;

    message_answer_begin(&answer, data, sizeof(data), question->query, &question->question);
    reply(server, question, data, message_answer_end(&answer, MESSAGE_SERVER_FAILURE));
}

static int open_resolver(const struct names_resolver *resolver, int type)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(PORT_DNS)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(PORT_DNS)};
    const bool ipv6 = resolver->family == AF_INET6;
    _cleanup_close_ int fd =
        socket(ipv6 ? AF_INET6 : AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    memcpy(&v4.sin_addr, resolver->address, sizeof(v4.sin_addr));
    memcpy(&v6.sin6_addr, resolver->address, sizeof(v6.sin6_addr));
    if (fd < 0)
        return -errno;
    if ((ipv6 ? connect(fd, (const struct sockaddr *)&v6, sizeof(v6))
              : connect(fd, (const struct sockaddr *)&v4, sizeof(v4))) < 0 &&
        errno != EINPROGRESS)
        return -errno;
    return steal_fd(&fd);
}

/* The next resolver that there is; without one the question is over. */
static void question_ask(struct server *server, struct question *question)
{
    close_fd(steal_fd(&question->source.fd));
    free(steal_ptr(question->answer));
    for (; question->resolver < NAMES_RESOLVERS_MAX; question->resolver++) {
        const struct names_resolver *resolver = &question->sandbox->resolvers[question->resolver];
        int fd = resolver->family ? open_resolver(resolver, SOCK_DGRAM) : -1;

        if (fd < 0)
            continue;
        jail_random(&question->id, sizeof(question->id));
        question->query[0] = (uint8_t)(question->id >> 8);
        question->query[1] = (uint8_t)question->id;
        if (send(fd, question->query, question->length, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
            close(fd);
            continue;
        }
        source_open(server, &question->source, SOURCE_QUESTION, fd, question);
        question->deadline = now_ms() + RESOLVER_TIMEOUT_MS;
        return;
    }
    reply_failure(server, question);
    question_end(server, question);
}

static void ask_next(struct server *server, struct question *question)
{
    question->resolver++;
    question_ask(server, question);
}

static bool is_answer(const struct question *question, const uint8_t *data, size_t length)
{
    uint16_t id;

    return message_is_response(data, length, &id) && id == question->id &&
           message_same_question(question->query, &question->question, data, length);
}

static bool is_cut(const uint8_t data[static MESSAGE_HEADER])
{
    return data[2] & 0x02; /* TC */
}

static unsigned long_answers(const struct server *server)
{
    unsigned count = 0;

    for (const struct question *question = server->questions; question; question = question->next)
        count += question->answer != NULL;
    return count;
}

/* The same resolver once more, for the whole of an answer that was cut. */
static void ask_over_tcp(struct server *server, struct question *question)
{
    close_fd(steal_fd(&question->source.fd));
    int fd = open_resolver(&question->sandbox->resolvers[question->resolver], SOCK_STREAM);
    if (fd < 0) {
        ask_next(server, question);
        return;
    }
    question->answer = xnew_array(uint8_t, ANSWER_MAX);
    question->answer_length = 0;
    question->sent = false;
    question->deadline = now_ms() + RESOLVER_TIMEOUT_MS;
    source_open(server, &question->source, SOURCE_QUESTION, fd, question);
    (void)watch(server, &question->source, EPOLL_CTL_MOD, EPOLLOUT);
}

/* The socket is new: it takes the whole query, or the connection has failed. */
static int send_over_tcp(struct server *server, struct question *question)
{
    uint8_t framed[2 + PACKET_MAX];
    const size_t length = question->length + 2;

    framed[0] = (uint8_t)(question->length >> 8);
    framed[1] = (uint8_t)question->length;
    memcpy(framed + 2, question->query, question->length);
    if (send(question->source.fd, framed, length, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)length)
        return -EPIPE;
    question->sent = true;
    return watch(server, &question->source, EPOLL_CTL_MOD, EPOLLIN);
}

static void on_resolver_tcp(struct server *server, struct question *question)
{
    uint8_t *data = question->answer;

    if (!question->sent) {
        if (send_over_tcp(server, question) < 0)
            ask_next(server, question);
        return;
    }
    ssize_t length = recv(question->source.fd, data + question->answer_length,
                          ANSWER_MAX - question->answer_length, MSG_DONTWAIT);
    if (length < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (length <= 0) {
        ask_next(server, question);
        return;
    }
    question->answer_length += (size_t)length;
    if (question->answer_length < 2)
        return;
    const size_t wanted = (size_t)(data[0] << 8 | data[1]);
    if (question->answer_length < wanted + 2)
        return;
    if (!is_answer(question, data + 2, wanted)) {
        ask_next(server, question);
        return;
    }
    reply(server, question, data + 2, wanted);
    question_end(server, question);
}

static void on_resolver(struct server *server, struct question *question)
{
    uint8_t data[PACKET_MAX];

    if (question->answer) {
        on_resolver_tcp(server, question);
        return;
    }
    ssize_t length = recv(question->source.fd, data, sizeof(data), MSG_DONTWAIT);
    if (length < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (length < 0) { /* refused */
        ask_next(server, question);
        return;
    }
    if (!is_answer(question, data, (size_t)length))
        return;
    if (question->client && is_cut(data) && long_answers(server) < LONG_ANSWERS_MAX) {
        ask_over_tcp(server, question);
        return;
    }
    reply(server, question, data, (size_t)length);
    question_end(server, question);
}

/* --- questions of containers ------------------------------------------------------------------ */

/* Returns the length of an answer in data, or 0: somebody else is asked, or nobody is answered. */
static size_t handle_query(struct server *server, struct sandbox *sandbox, const uint8_t *query,
                           size_t length, struct client *client, const struct sockaddr_in *peer,
                           uint8_t *data, size_t size)
{
    struct message_question question;
    struct message_answer answer;

    if (message_read_question(query, length, &question) < 0)
        return 0;
    message_answer_begin(&answer, data, size, query, &question);
    if (table_answer(&server->table, sandbox->container, &question, &answer))
        return message_answer_end(&answer, MESSAGE_OK);
    if (!sandbox->may_ask_others)
        return message_answer_end(&answer, MESSAGE_NO_SUCH_NAME);
    if (server->questions_count >= QUESTIONS_MAX || sandbox->questions >= QUESTIONS_EACH)
        return message_answer_end(&answer, MESSAGE_SERVER_FAILURE);
    struct question *asked = xnew(struct question);
    asked->sandbox = sandbox;
    asked->client = client;
    if (peer)
        asked->peer = *peer;
    asked->question = question;
    asked->length = length;
    asked->source.fd = -1;
    memcpy(asked->query, query, length);
    asked->next = server->questions;
    server->questions = asked;
    server->questions_count++;
    sandbox->questions++;
    question_ask(server, asked);
    return 0;
}

static void on_udp(struct server *server, struct sandbox *sandbox)
{
    uint8_t query[PACKET_MAX], data[PACKET_MAX];

    for (int i = 0; i < EVENTS; i++) {
        struct sockaddr_in peer;
        socklen_t size = sizeof(peer);
        ssize_t length = recvfrom(sandbox->udp.fd, query, sizeof(query), MSG_DONTWAIT,
                                  (struct sockaddr *)&peer, &size);

        if (length < 0)
            return;
        size_t answer = handle_query(server, sandbox, query, (size_t)length, NULL, &peer, data,
                                     MESSAGE_UDP_MAX);
        if (answer > 0)
            (void)sendto(sandbox->udp.fd, data, answer, MSG_DONTWAIT | MSG_NOSIGNAL,
                         (const struct sockaddr *)&peer, size);
    }
}

/* --- TCP -------------------------------------------------------------------------------------- */

static void client_end(struct server *server, struct client *client)
{
    for (struct client **at = &server->clients; *at; at = &(*at)->next) {
        if (*at != client)
            continue;
        *at = client->next;
        break;
    }
    for (struct question *question = server->questions, *next; question; question = next) {
        next = question->next;
        if (question->client == client)
            question_end(server, question);
    }
    close_fd(steal_fd(&client->source.fd));
    server->clients_count--;
    client->sandbox->clients--;
    release_later(server, client);
}

/* A client that does not read what its socket holds is let go. */
static void answer_client(struct server *server, struct client *client, const uint8_t *data,
                          size_t length)
{
    static uint8_t framed[ANSWER_MAX];
    const size_t size = length + 2;

    framed[0] = (uint8_t)(length >> 8);
    framed[1] = (uint8_t)length;
    memcpy(framed + 2, data, length);
    if (send(client->source.fd, framed, size, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)size)
        (void)shutdown(client->source.fd, SHUT_RDWR); /* ends it with its next event */
}

static void on_client(struct server *server, struct client *client)
{
    uint8_t data[PACKET_MAX];
    ssize_t length = recv(client->source.fd, client->data + client->length,
                          sizeof(client->data) - client->length, MSG_DONTWAIT);

    if (length < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (length <= 0) {
        client_end(server, client);
        return;
    }
    client->length += (size_t)length;
    while (client->length >= 2) {
        size_t wanted = (size_t)(client->data[0] << 8 | client->data[1]);

        if (wanted > PACKET_MAX) {
            client_end(server, client);
            return;
        }
        if (client->length < wanted + 2)
            return;
        size_t answer = handle_query(server, client->sandbox, client->data + 2, wanted, client,
                                     NULL, data, sizeof(data));
        if (answer > 0)
            answer_client(server, client, data, answer);
        client->length -= wanted + 2;
        memmove(client->data, client->data + 2 + wanted, client->length);
    }
}

static void on_tcp(struct server *server, struct sandbox *sandbox)
{
    int fd = socket_accept(sandbox->tcp.fd, SOCK_CLOEXEC | SOCK_NONBLOCK, &server->spare_fd);

    if (fd < 0)
        return;
    if (server->clients_count >= CLIENTS_MAX || sandbox->clients >= CLIENTS_EACH) {
        close(fd);
        return;
    }
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &(int){CLIENT_BUFFER}, sizeof(int));
    struct client *client = xnew(struct client);
    client->sandbox = sandbox;
    client->deadline = now_ms() + CLIENT_TIMEOUT_MS;
    client->next = server->clients;
    server->clients = client;
    server->clients_count++;
    sandbox->clients++;
    source_open(server, &client->source, SOURCE_CLIENT, fd, client);
}

/* --- sandboxes -------------------------------------------------------------------------------- */

static struct sandbox *sandbox_find(struct server *server, const char *container)
{
    for (struct sandbox *sandbox = server->sandboxes; sandbox; sandbox = sandbox->next) {
        if (text_equal(sandbox->container, container))
            return sandbox;
    }
    return NULL;
}

static void sandbox_end(struct server *server, struct sandbox *sandbox)
{
    for (struct client *client = server->clients, *next; client; client = next) {
        next = client->next;
        if (client->sandbox == sandbox)
            client_end(server, client);
    }
    for (struct question *question = server->questions, *next; question; question = next) {
        next = question->next;
        if (question->sandbox == sandbox)
            question_end(server, question);
    }
    for (struct sandbox **at = &server->sandboxes; *at; at = &(*at)->next) {
        if (*at != sandbox)
            continue;
        *at = sandbox->next;
        break;
    }
    close_fd(steal_fd(&sandbox->udp.fd));
    close_fd(steal_fd(&sandbox->tcp.fd));
    close_fd(steal_fd(&sandbox->monitor.fd));
    server->sandboxes_count--;
    release_later(server, sandbox);
}

static void container_gone(struct server *server, const char *container)
{
    struct sandbox *sandbox = sandbox_find(server, container);

    table_remove(&server->table, container, NULL);
    if (sandbox)
        sandbox_end(server, sandbox);
}

static void sandbox_allow(struct sandbox *sandbox, const struct names_sandbox *message)
{
    memcpy(sandbox->resolvers, message->resolvers, sizeof(sandbox->resolvers));
    sandbox->may_ask_others = message->may_ask_others;
}

static void sandbox_set(struct server *server, const struct names_sandbox *message, int *fds,
                        size_t fds_count)
{
    struct sandbox *old = sandbox_find(server, message->header.container);

    if (fds_count < 2 || (!old && server->sandboxes_count >= SANDBOXES_MAX))
        return;
    if (old)
        sandbox_end(server, old);
    struct sandbox *sandbox = xnew(struct sandbox);
    memcpy(sandbox->container, message->header.container, sizeof(sandbox->container));
    sandbox_allow(sandbox, message);
    sandbox->next = server->sandboxes;
    server->sandboxes = sandbox;
    server->sandboxes_count++;
    source_open(server, &sandbox->udp, SOURCE_UDP, steal_fd(&fds[0]), sandbox);
    source_open(server, &sandbox->tcp, SOURCE_TCP, steal_fd(&fds[1]), sandbox);
    source_open(server, &sandbox->monitor, SOURCE_MONITOR, fds_count > 2 ? steal_fd(&fds[2]) : -1,
                sandbox);
}

/* --- the engine ------------------------------------------------------------------------------- */

union message {
    struct names_header header;
    struct names_place place;
    struct names_sandbox sandbox;
    char data[NAMES_MESSAGE_MAX];
};

static void handle_message(struct server *server, union message *message, size_t length, int *fds,
                           size_t fds_count)
{
    struct sandbox *sandbox;

    if (length < sizeof(message->header) || message->header.version != NAMES_VERSION)
        return;
    message->header.container[NAMES_ID_SIZE - 1] = '\0';
    switch ((enum names_type)message->header.type) {
    case NAMES_RESET:
        table_clear(&server->table);
        break;
    case NAMES_PLACE:
    case NAMES_LEAVE:
        if (length < sizeof(message->place))
            return;
        message->place.network[NAMES_ID_SIZE - 1] = '\0';
        message->place.network_name[sizeof(message->place.network_name) - 1] = '\0';
        if (message->header.type == NAMES_PLACE)
            table_set(&server->table, &message->place, length);
        else
            table_remove(&server->table, message->header.container, message->place.network);
        break;
    case NAMES_SANDBOX:
        if (length >= sizeof(message->sandbox))
            sandbox_set(server, &message->sandbox, fds, fds_count);
        break;
    case NAMES_GONE:
        container_gone(server, message->header.container);
        break;
    case NAMES_POLICY:
        sandbox = sandbox_find(server, message->header.container);
        if (sandbox && length >= sizeof(message->sandbox))
            sandbox_allow(sandbox, &message->sandbox);
        break;
    }
}

static void on_control(struct server *server)
{
    static union message message;

    for (int i = 0; i < EVENTS && server->control.fd >= 0; i++) {
        int fds[3] = {-1, -1, -1};
        size_t fds_count = ARRAY_SIZE(fds);
        ssize_t length =
            socket_receive_now(server->control.fd, &message, sizeof(message), fds, &fds_count);

        if (length == -EAGAIN || length == -EINTR)
            return;
        if (length <= 0) {
            close_fd(steal_fd(&server->control.fd));
            return;
        }
        handle_message(server, &message, (size_t)length, fds, fds_count);
        for (size_t j = 0; j < ARRAY_SIZE(fds); j++)
            close_fd(fds[j]);
    }
}

static void on_listen(struct server *server)
{
    int fd = socket_accept(server->listen.fd, SOCK_CLOEXEC | SOCK_NONBLOCK, &server->spare_fd);

    if (fd < 0)
        return;
    close_fd(steal_fd(&server->control.fd));
    source_open(server, &server->control, SOURCE_CONTROL, fd, NULL);
}

/* --- the loop --------------------------------------------------------------------------------- */

static void handle(struct server *server, struct source *source)
{
    if (source->fd < 0)
        return; /* ended by an event before */
    switch (source->kind) {
    case SOURCE_LISTEN:
        on_listen(server);
        break;
    case SOURCE_CONTROL:
        on_control(server);
        break;
    case SOURCE_UDP:
        on_udp(server, source->owner);
        break;
    case SOURCE_TCP:
        on_tcp(server, source->owner);
        break;
    case SOURCE_MONITOR:
        container_gone(server, ((struct sandbox *)source->owner)->container);
        break;
    case SOURCE_QUESTION:
        on_resolver(server, source->owner);
        break;
    case SOURCE_CLIENT:
        on_client(server, source->owner);
        break;
    }
}

static void expire(struct server *server, int64_t now)
{
    for (struct question *question = server->questions, *next; question; question = next) {
        next = question->next;
        if (question->deadline <= now)
            ask_next(server, question);
    }
    for (struct client *client = server->clients, *next; client; client = next) {
        next = client->next;
        if (client->deadline <= now)
            client_end(server, client);
    }
}

static int next_timeout(const struct server *server, int64_t now)
{
    int64_t first = INT64_MAX;

    for (const struct question *question = server->questions; question; question = question->next)
        first = question->deadline < first ? question->deadline : first;
    for (const struct client *client = server->clients; client; client = client->next)
        first = client->deadline < first ? client->deadline : first;
    if (first == INT64_MAX)
        return -1;
    return first <= now ? 0 : (int)(first - now);
}

static void serve(struct server *server)
{
    while (server->control.fd >= 0 || server->sandboxes) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(server->epoll_fd, events, EVENTS, next_timeout(server, now_ms()));

        for (int i = 0; i < count; i++)
            handle(server, events[i].data.ptr);
        expire(server, now_ms());
        while (server->garbage_count > 0)
            free(server->garbage[--server->garbage_count]);
    }
}

static const char *const calls[] = {"connect",       "shutdown",  "accept4", "sendto",
                                    "recvfrom",      "sendmsg",   "recvmsg", "setsockopt",
                                    "getsockopt",    "read",      "write",   "fcntl",
                                    "clock_gettime", "getrandom", NULL};

int names_serve(void)
{
    static struct server server;
    _cleanup_error_ struct error err = ERROR_INIT;

    jail_allow_descriptors(); /* three for each container, and more for questions and clients */
    server.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    server.spare_fd = fcntl(server.epoll_fd, F_DUPFD_CLOEXEC, 0);
    if (server.epoll_fd < 0 || jail_enter("cloche-names", calls, &err) < 0) {
        dprintf(STDERR_FILENO, "cloche-names: %s\n", error_message(&err));
        return 1;
    }
    source_open(&server, &server.listen, SOURCE_LISTEN, NAMES_LISTEN_FD, NULL);
    source_open(&server, &server.control, SOURCE_CONTROL, NAMES_CONTROL_FD, NULL);
    serve(&server);
    return 0;
}
