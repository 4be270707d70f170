/*
 * A phone book that is asked over a socket. Names, parameters and their rules are in
 * phonebook.json; cloche-rpcgen(1) makes the structures and struct phonebook_handlers of it.
 *
 *     make && ./server /tmp/phonebook.sock
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "phonebook.h"

enum { PEOPLE_MAX = 1000 };

/* Each was written by the server's own functions: what is kept has the form that was checked. */
struct book {
    struct phonebook_person *people[PEOPLE_MAX];
    size_t count;
};

static struct cloche_rpc_loop *loop;
static volatile sig_atomic_t stopped;

static size_t find(const struct book *book, const char *name)
{
    size_t i = 0;

    while (i < book->count && strcmp(book->people[i]->name, name) != 0)
        i++;
    return i;
}

/* What came with a call is the call's: a copy stays. */
static struct phonebook_person *copy(const struct phonebook_person *person)
{
    char *text = phonebook_person_write(person);
    struct phonebook_person *copied = NULL;

    phonebook_person_parse(text, strlen(text), &copied, NULL);
    free(text);
    return copied;
}

static void put(struct cloche_rpc_request *request, const struct phonebook_person *person,
                void *context)
{
    struct book *book = context;
    size_t at = find(book, person->name);
    const struct phonebook_added added = {.replaced = at < book->count};

    if (at == PEOPLE_MAX) {
        cloche_rpc_fail(request, CLOCHE_RPC_TOO_MANY, "The book is full", "forget somebody");
        return;
    }
    phonebook_person_free(book->people[at]);
    book->people[at] = copy(person);
    book->count += !added.replaced;
    phonebook_put_reply(request, &added);
}

/* NULL: the call is answered. */
static struct phonebook_person **look_up(struct book *book, struct cloche_rpc_request *request,
                                         const char *name)
{
    size_t at = find(book, name);

    if (at < book->count)
        return &book->people[at];
    cloche_rpc_fail(request, CLOCHE_RPC_NOT_FOUND, "Nobody has this name", "see phonebook.list");
    return NULL;
}

static void look(struct cloche_rpc_request *request, const struct phonebook_who *who, void *context)
{
    struct phonebook_person **found = look_up(context, request, who->name);

    if (found)
        phonebook_find_reply(request, *found);
}

static void list(struct cloche_rpc_request *request, const void *params, void *context)
{
    struct book *book = context;
    const struct phonebook_people all = {.people = book->people, .people_count = book->count};

    (void)params;
    phonebook_list_reply(request, &all);
}

static void forget(struct cloche_rpc_request *request, const struct phonebook_who *who,
                   void *context)
{
    struct book *book = context;
    struct phonebook_person **found = look_up(book, request, who->name);

    if (!found)
        return;
    phonebook_person_free(*found);
    *found = book->people[--book->count];
    book->people[book->count] = NULL;
    phonebook_forget_reply(request);
}

static const struct phonebook_handlers handlers = {
    .put = put,
    .find = look,
    .list = list,
    .forget = forget,
};

static void on_signal(int number)
{
    (void)number;
    stopped = 1;
    cloche_rpc_loop_wake(loop);
}

int main(int argc, char **argv)
{
    static struct book book;
    const struct cloche_rpc_settings settings = {
        .size = sizeof(settings), .context = &book, .document = phonebook_openrpc};
    struct cloche_rpc_server *server;

    if (argc != 2 || cloche_rpc_loop_create(&loop) < 0 ||
        cloche_rpc_server_create(loop, &settings, &server) < 0 ||
        phonebook_serve(server, &handlers) < 0)
        return EXIT_FAILURE;
    int r = cloche_rpc_server_listen(server, argv[1], 0600);
    if (r < 0) {
        fprintf(stderr, "%s: %s\n", argv[1], strerror(-r));
        return EXIT_FAILURE;
    }
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    puts("ready");
    fflush(stdout);
    while (!stopped)
        cloche_rpc_loop_run_once(loop, -1);
    cloche_rpc_server_destroy(server);
    cloche_rpc_loop_destroy(loop);
    while (book.count)
        phonebook_person_free(book.people[--book.count]);
    remove(argv[1]);
    return EXIT_SUCCESS;
}
