/*
 * For test_rpc_strangers.py: three calls of the calculator, then what the client has counted.
 * Knows nothing of this tree but what is installed.
 */
#include <stdio.h>
#include <stdlib.h>

#include <cloche/client.h>

int main(int argc, char **argv)
{
    const char *const endpoints[] = {argc > 1 ? argv[1] : "", "unix:/nothing/there", NULL};
    const struct cloche_client_settings settings = {.size = sizeof(settings),
                                                    .endpoints = endpoints};
    const struct cloche_call_options options = {.size = sizeof(options), .timeout_ms = 30};
    struct cloche_client *client;
    char *result = NULL;

    if (cloche_client_open(&settings, &client, NULL) < 0 ||
        cloche_client_call(client, "subtract", "[42,23]", NULL, &result, NULL) < 0 ||
        cloche_client_call(client, "nothing", NULL, NULL, NULL, NULL) == 0 ||
        cloche_client_call(client, "take_long", NULL, &options, NULL, NULL) == 0)
        return EXIT_FAILURE;
    free(result);
    char *text = cloche_client_metrics(client, CLOCHE_METRICS_OPEN);
    fputs(text, stdout);
    free(text);
    cloche_client_close(client);
    return EXIT_SUCCESS;
}
