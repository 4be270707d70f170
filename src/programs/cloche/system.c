#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <base/alloc.h>
#include <base/text.h>
#include <rpc/client.h>
#include <schema/management.h>

#include "cli.h"

enum { END_MILLISECONDS = 10000 }; /* from the daemon's last answer to its end */

struct remove_options {
    bool force;
};

static const struct option remove_table[] = {
    {
        .name = "force",
        .short_name = 'f',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct remove_options, force),
        .help = "Do not ask, and end the containers that run",
    },
    {.name = NULL},
};

static const struct option_group remove_groups[] = {{.options = remove_table}, {.options = NULL}};

static bool confirmed(const struct cli *cli)
{
    char answer[16];

    fprintf(stderr,
            "This removes all containers, images and networks of %s%s, and its files in %s.\n"
            "Are you sure you want to continue? [y/N] ",
            cli->instance.name[0] ? "the instance " : "this machine's engine", cli->instance.name,
            cli->instance.root);
    return fgets(answer, sizeof(answer), stdin) && (answer[0] == 'y' || answer[0] == 'Y');
}

/* Nothing is there: to start a daemon would only make what it is asked to remove. */
static bool exists(struct cli *cli)
{
    return cli_connect_running(cli) || access(cli->instance.root, F_OK) == 0 ||
           access(cli->instance.run, F_OK) == 0;
}

/* A pidfd of the daemon on the other end of the connection; negative when there is no way. */
static int daemon_process(const struct cli *cli)
{
    struct ucred peer;
    socklen_t length = sizeof(peer);

    if (getsockopt(rpc_client_fd(cli->client), SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0)
        return -errno;
    return (int)syscall(SYS_pidfd_open, peer.pid, 0);
}

static int run(struct cli *cli, const void *values, char *const *operands)
{
    const struct remove_options *options = values;
    _cleanup_error_ struct error err = ERROR_INIT;
    _cleanup_close_ int daemon = -1;
    const struct api_system_remove params = {.force = options->force, .has_force = true};

    if (!exists(cli))
        return EXIT_DONE;
    if (!options->force && !confirmed(cli))
        return EXIT_FAILED;
    if (cli_connect(cli, &err) < 0)
        return cli_fail(&err);
    daemon = daemon_process(cli);
    if (cli_call(cli, "system.remove", &params, NULL, &err) < 0)
        return cli_fail(&err);
    /* The run folder goes with the daemon's last steps, after its answer. */
    struct pollfd end = {.fd = daemon, .events = POLLIN};
    if (daemon >= 0 && poll(&end, 1, END_MILLISECONDS) == 0) {
        error_set(&err, -ETIMEDOUT, "the daemon did not end");
        return cli_fail(&err);
    }
    return EXIT_DONE;
}

const struct command system_remove_command = {
    .name = "remove",
    .usage = "[OPTIONS]",
    .summary = "Take the engine's containers, images and files off this machine",
    .options = remove_groups,
    .values_size = sizeof(struct remove_options),
    .run = run,
};
