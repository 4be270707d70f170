/*
 * The containers of one or more engines, by libcloche-rpc:
 *
 *     cc containers.c $(pkg-config --cflags --libs libcloche-rpc) -o containers
 *     ./containers [SOCKET...]
 *
 * First by a call that blocks, then all of them looked at again at once by calls that call back,
 * which a loop of one's own polls; at the end what the client has counted.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include <cloche/management.h>

struct looks {
    size_t left, failed;
};

static void on_details(void *data, struct cloche_container_details *details,
                       const struct cloche_error *error)
{
    struct looks *looks = data;

    if (error) {
        fprintf(stderr, "%s\n", error->message);
        looks->failed++;
    } else {
        printf("%s is %s\n", details->name, details->state->status);
    }
    cloche_container_details_free(details);
    looks->left--;
}

static size_t look_at_all(struct cloche_client *client,
                          const struct cloche_container_summaries *list)
{
    struct looks looks = {0};

    for (size_t i = 0; i < list->containers_count; i++) {
        const struct cloche_container_ref ref = {.container = list->containers[i]->id};
        if (cloche_container_inspect_async(client, &ref, 5000, on_details, &looks) > 0)
            looks.left++;
        else
            looks.failed++;
    }
    while (looks.left) {
        struct pollfd ready = {.fd = cloche_client_fd(client), .events = POLLIN};
        poll(&ready, 1, -1);
        cloche_client_dispatch(client);
    }
    return looks.failed;
}

int main(int argc, char **argv)
{
    const struct cloche_client_settings settings = {
        .size = sizeof(settings),
        .endpoints = argc > 1 ? (const char *const *)&argv[1] : NULL,
        .polled = true,
        .fail_fast = true,
    };
    const struct cloche_container_list all = {.all = true, .has_all = true};
    struct cloche_container_summaries *list = NULL;
    struct cloche_client *client = NULL;
    struct cloche_error error = {0};

    if (cloche_client_open(&settings, &client, &error) < 0 ||
        cloche_container_list(client, &all, &list, &error) < 0) {
        fprintf(stderr, "%s\n", error.message);
        cloche_error_finish(&error);
        cloche_client_close(client);
        return EXIT_FAILURE;
    }
    printf("%zu containers\n", list->containers_count);
    size_t failed = look_at_all(client, list);
    char *metrics = cloche_client_metrics(client, CLOCHE_METRICS_JSON);
    printf("%s\n", metrics);
    free(metrics);
    cloche_container_summaries_free(list);
    cloche_client_close(client);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
