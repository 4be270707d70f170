/*
 * cloche-docker: the Docker Engine API on Unix sockets. It is cloche-door without what listens at
 * networks, and without the libraries of that, so that it is small.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include <base/log.h>
#include <base/text.h>
#include <door/serve.h>

static const char usage[] =
    "Usage: cloche-docker --listen URL... OPTION...\n"
    "\n"
    "Serves the Docker Engine API on Unix sockets. The daemon starts it; cloche-door is the same "
    "for\n"
    "networks.\n"
    "\n"
    "  --listen URL      docker+unix:// and a path\n"
    "  --connections N   at most so many connections\n"
    "  --exit-seconds N  end after so long without a connection\n"
    "  --control-fd N    connections go to the daemon through descriptor N\n"
    "  --sockets-from N  the sockets of --listen are open, from descriptor N on\n"
    "  --uid N --gid N   go on as this user, in a jail\n"
    "  --help            print this\n";

enum { OPT_LISTEN = 256, OPT_NUMBERS };

static const struct option options[] = {
    {"listen", required_argument, NULL, OPT_LISTEN},
    {"help", no_argument, NULL, 'h'},
    {"connections", required_argument, NULL, OPT_NUMBERS},
    {"exit-seconds", required_argument, NULL, OPT_NUMBERS + 1},
    {"control-fd", required_argument, NULL, OPT_NUMBERS + 2},
    {"sockets-from", required_argument, NULL, OPT_NUMBERS + 3},
    {"uid", required_argument, NULL, OPT_NUMBERS + 4},
    {"gid", required_argument, NULL, OPT_NUMBERS + 5},
    {0},
};

static int parse_number(struct door_config *config, int which)
{
    void *const values[] = {&config->connections,  &config->exit_seconds, &config->control_fd,
                            &config->sockets_from, &config->uid,          &config->gid};
    uint64_t value;

    int r = text_to_u64(optarg, 1, INT32_MAX, &value);
    if (r == 0)
        *(uint32_t *)values[which] = (uint32_t)value; /* all are of 32 bits */
    return r;
}

static int parse(int argc, char **argv, struct door_config *config)
{
    int option;

    while ((option = getopt_long(argc, argv, "h", options, NULL)) >= 0) {
        if (option == 'h') {
            fputs(usage, stdout);
            return 1;
        }
        if (option == OPT_LISTEN)
            strv_append(&config->listen, optarg);
        else if (option < OPT_NUMBERS || parse_number(config, option - OPT_NUMBERS) < 0)
            return -EINVAL;
    }
    config->to_user = config->uid && config->gid;
    return optind < argc ? -EINVAL : 0;
}

static void on_ready(void *data _unused_)
{
    log_info("ready");
}

int main(int argc, char **argv)
{
    struct door_config config = DOOR_CONFIG_INIT;
    _cleanup_error_ struct error err = ERROR_INIT;

    int r = parse(argc, argv, &config);
    if (r < 0)
        fputs(usage, stderr);
    if (r == 0) {
        log_configure("cloche-docker", STDERR_FILENO, LOG_INFO, LOG_FORMAT_AUTO);
        r = door_serve(&config, on_ready, NULL, &err);
        if (r < 0)
            log_failure(LOG_ERROR, &err, "cannot start");
    }
    strv_free(config.listen);
    return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
