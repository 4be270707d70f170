/*
 * Asks the phone book, by the functions that cloche-rpcgen(1) made of phonebook.json.
 *
 *     ./client /tmp/phonebook.sock put Ada 1815 [home|work]
 *     ./client /tmp/phonebook.sock find Ada
 *     ./client /tmp/phonebook.sock list
 *     ./client /tmp/phonebook.sock forget Ada
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "phonebook.h"

static int put(struct cloche_client *client, char **words, struct cloche_error *error)
{
    const struct phonebook_person person = {.name = words[0], .number = words[1], .kind = words[2]};
    struct phonebook_added *added;

    int r = phonebook_put(client, &person, &added, error);
    if (r < 0)
        return r;
    puts(added->replaced ? "replaced" : "added");
    phonebook_added_free(added);
    return 0;
}

static int find(struct cloche_client *client, const char *name, struct cloche_error *error)
{
    const struct phonebook_who who = {.name = (char *)name};
    struct phonebook_person *person;

    int r = phonebook_find(client, &who, &person, error);
    if (r < 0)
        return r;
    printf("%s: %s (%s)\n", person->name, person->number, person->kind ? person->kind : "home");
    phonebook_person_free(person);
    return 0;
}

static int forget(struct cloche_client *client, const char *name, struct cloche_error *error)
{
    const struct phonebook_who who = {.name = (char *)name};

    return phonebook_forget(client, &who, error);
}

struct listing {
    bool ended;
    int r;
};

static void on_people(void *data, struct phonebook_people *result, const struct cloche_error *error)
{
    struct listing *listing = data;

    for (size_t i = 0; result && i < result->people_count; i++)
        printf("%s: %s\n", result->people[i]->name, result->people[i]->number);
    if (error)
        fprintf(stderr, "%s\n", error->message);
    listing->r = error ? error->code : 0;
    listing->ended = true;
    phonebook_people_free(result);
}

/* The same kind of call with a callback, in a loop of one's own. */
static int list(struct cloche_client *client)
{
    struct listing listing = {0};

    int64_t number = phonebook_list_async(client, 5000, on_people, &listing);
    if (number < 0)
        return (int)number;
    while (!listing.ended) {
        struct pollfd ready = {.fd = cloche_client_fd(client), .events = POLLIN};
        poll(&ready, 1, -1);
        cloche_client_dispatch(client);
    }
    return listing.r;
}

int main(int argc, char **argv)
{
    const char *const endpoints[] = {argc > 1 ? argv[1] : NULL, NULL};
    const struct cloche_client_settings settings = {
        .size = sizeof(settings), .endpoints = endpoints, .polled = true, .fail_fast = true};
    const char *verb = argc > 2 ? argv[2] : "";
    struct cloche_error error = {0};
    struct cloche_client *client;
    int r = -1;

    if (argc < 3 || cloche_client_open(&settings, &client, &error) < 0) {
        fprintf(stderr, "%s\n", error.message ? error.message : "usage: client SOCKET VERB ...");
        return EXIT_FAILURE;
    }
    if (argc >= 5 && strcmp(verb, "put") == 0)
        r = put(client, argv + 3, &error);
    else if (argc == 4 && strcmp(verb, "find") == 0)
        r = find(client, argv[3], &error);
    else if (argc == 4 && strcmp(verb, "forget") == 0)
        r = forget(client, argv[3], &error);
    else if (argc == 3 && strcmp(verb, "list") == 0)
        r = list(client);
    else
        fprintf(stderr, "put NAME NUMBER [KIND], find NAME, forget NAME, or list\n");
    if (error.message)
        fprintf(stderr, "%s%s%s\n", error.message, error.hint ? ": " : "",
                error.hint ? error.hint : "");
    cloche_error_finish(&error);
    cloche_client_close(client);
    return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
