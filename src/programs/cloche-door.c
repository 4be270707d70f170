/*
 * cloche-door: where connections from the network end. Its options, and nothing else.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <unistd.h>

#include <base/log.h>
#include <base/text.h>
#include <door/serve.h>

enum { FD_MAX = 1024, SECONDS_MAX = 365 * 24 * 3600, CONNECTIONS_MAX = 65536 };

static const char usage[] =
    "Usage: cloche-door --listen URL... --connect SOCKET [OPTION...]\n"
    "\n"
    "Ends TCP, TLS and WebSocket connections and passes their messages on to the Cloche daemon. "
    "The\n"
    "daemon starts it for the doors of its configuration; by hand it serves with the rights of\n"
    "whoever runs it.\n"
    "\n"
    "  --listen URL          tcp://, tls://, ws:// or wss://, an address and a port; also\n"
    "                        docker+tls:// and docker+tcp://, or docker+unix:// and a path\n"
    "  --connect SOCKET      the daemon's socket\n"
    "  --tls-cert FILE       our certificate and what it was signed with (PEM)\n"
    "  --tls-key FILE        its key\n"
    "  --tls-client-ca FILE  authorities: only clients with a certificate of theirs come in\n"
    "  --tls-crl FILE        certificates that they have revoked\n"
    "  --origin ORIGIN       pages of this origin may come in, besides our own ('*': any, 'null':\n"
    "                        files)\n"
    "  --page FILE           answer GET / with this page\n"
    "  --insecure-loopback   listen on loopback addresses without client certificates\n"
    "  --connections N       at most so many connections (default: 256)\n"
    "  --connections-per-address N\n"
    "                        and so many of one address (default: 64)\n"
    "  --handshakes-per-address N\n"
    "                        of those, not let in yet (default: 16)\n"
    "  --handshake-seconds N\n"
    "                        time for TLS and HTTP (default: 10)\n"
    "  --ping-seconds N      silence before a WebSocket is pinged, and time to answer (default: "
    "30)\n"
    "  --stall-seconds N     time without reading what waits (default: 60)\n"
    "  --idle-seconds N      time without a byte either way (default: 0, any)\n"
    "  --exit-seconds N      end after so long without a connection (default: 0, never)\n"
    "  --check               look at the options and files, and end\n"
    "  --log-level LEVEL     error, warning, info (default) or debug\n"
    "  --version             print the version\n"
    "  --help                print this\n"
    "\n"
    "The daemon's own:\n"
    "  --control-fd N        connections go to the daemon through descriptor N\n"
    "  --sockets-from N      the sockets of --listen are open, from descriptor N on\n"
    "  --uid N --gid N       go on as this user, in a jail\n";

enum {
    OPT_LISTEN = 256,
    OPT_CONNECT,
    OPT_CERT,
    OPT_KEY,
    OPT_CLIENT_CA,
    OPT_CRL,
    OPT_ORIGIN,
    OPT_PAGE,
    OPT_INSECURE,
    OPT_CHECK,
    OPT_LEVEL,
    OPT_VERSION,
    /* numbers, in the order of number_options */
    OPT_NUMBERS,
};

static const struct option options[] = {
    {"listen", required_argument, NULL, OPT_LISTEN},
    {"connect", required_argument, NULL, OPT_CONNECT},
    {"tls-cert", required_argument, NULL, OPT_CERT},
    {"tls-key", required_argument, NULL, OPT_KEY},
    {"tls-client-ca", required_argument, NULL, OPT_CLIENT_CA},
    {"tls-crl", required_argument, NULL, OPT_CRL},
    {"origin", required_argument, NULL, OPT_ORIGIN},
    {"page", required_argument, NULL, OPT_PAGE},
    {"insecure-loopback", no_argument, NULL, OPT_INSECURE},
    {"connections", required_argument, NULL, OPT_NUMBERS},
    {"connections-per-address", required_argument, NULL, OPT_NUMBERS + 1},
    {"handshakes-per-address", required_argument, NULL, OPT_NUMBERS + 2},
    {"handshake-seconds", required_argument, NULL, OPT_NUMBERS + 3},
    {"ping-seconds", required_argument, NULL, OPT_NUMBERS + 4},
    {"stall-seconds", required_argument, NULL, OPT_NUMBERS + 5},
    {"idle-seconds", required_argument, NULL, OPT_NUMBERS + 6},
    {"exit-seconds", required_argument, NULL, OPT_NUMBERS + 7},
    {"control-fd", required_argument, NULL, OPT_NUMBERS + 8},
    {"sockets-from", required_argument, NULL, OPT_NUMBERS + 9},
    {"uid", required_argument, NULL, OPT_NUMBERS + 10},
    {"gid", required_argument, NULL, OPT_NUMBERS + 11},
    {"check", no_argument, NULL, OPT_CHECK},
    {"log-level", required_argument, NULL, OPT_LEVEL},
    {"version", no_argument, NULL, OPT_VERSION},
    {"help", no_argument, NULL, 'h'},
    {0},
};

struct settings {
    struct door_config config;
    enum log_level log_level;
    bool check;
    bool has_uid, has_gid;
};

struct number {
    void *value; /* uint32_t, as all of those that are not are of its size */
    uint64_t min, max;
};

static int parse_number(struct settings *settings, int which, const char *text)
{
    struct door_config *config = &settings->config;
    const struct number numbers[] = {
        {&config->connections, 1, CONNECTIONS_MAX},
        {&config->connections_per_address, 1, CONNECTIONS_MAX},
        {&config->handshakes_per_address, 1, CONNECTIONS_MAX},
        {&config->handshake_seconds, 1, SECONDS_MAX},
        {&config->ping_seconds, 1, SECONDS_MAX},
        {&config->stall_seconds, 1, SECONDS_MAX},
        {&config->idle_seconds, 0, SECONDS_MAX},
        {&config->exit_seconds, 0, SECONDS_MAX},
        {&config->control_fd, 3, FD_MAX},
        {&config->sockets_from, 3, FD_MAX},
        {&config->uid, 1, UINT32_MAX - 1},
        {&config->gid, 1, UINT32_MAX - 1},
    };
    const struct number *number = &numbers[which];
    uint64_t value;

    if (text_to_u64(text, number->min, number->max, &value) < 0) {
        fprintf(stderr, "cloche-door: not a number from %ju to %ju: '%s'\n", (uintmax_t)number->min,
                (uintmax_t)number->max, text);
        return -EINVAL;
    }
    *(uint32_t *)number->value = (uint32_t)value;
    settings->has_uid |= number->value == &config->uid;
    settings->has_gid |= number->value == &config->gid;
    return 0;
}

static int parse_level(const char *text, enum log_level *ret)
{
    static const char *const names[] = {[LOG_ERROR] = "error",
                                        [LOG_WARNING] = "warning",
                                        [LOG_INFO] = "info",
                                        [LOG_DEBUG] = "debug"};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        if (text_equal(names[i], text)) {
            *ret = (enum log_level)i;
            return 0;
        }
    }
    fprintf(stderr, "cloche-door: unknown log level: '%s'\n", text);
    return -EINVAL;
}

static int parse_one(int option, struct settings *settings)
{
    struct door_config *config = &settings->config;

    switch (option) {
    case OPT_LISTEN:
        strv_append(&config->listen, optarg);
        return 0;
    case OPT_CONNECT:
        config->connect = optarg;
        return 0;
    case OPT_CERT:
        config->tls_cert = optarg;
        return 0;
    case OPT_KEY:
        config->tls_key = optarg;
        return 0;
    case OPT_CLIENT_CA:
        config->tls_client_ca = optarg;
        return 0;
    case OPT_CRL:
        config->tls_crl = optarg;
        return 0;
    case OPT_ORIGIN:
        strv_append(&config->origins, optarg);
        return 0;
    case OPT_PAGE:
        config->page = optarg;
        return 0;
    case OPT_INSECURE:
        config->insecure_loopback = true;
        return 0;
    case OPT_CHECK:
        settings->check = true;
        return 0;
    case OPT_LEVEL:
        return parse_level(optarg, &settings->log_level);
    case OPT_VERSION:
        printf("cloche-door version %s\n", CLOCHE_VERSION);
        return 1;
    case 'h':
        fputs(usage, stdout);
        return 1;
    default:
        return option >= OPT_NUMBERS ? parse_number(settings, option - OPT_NUMBERS, optarg)
                                     : -EINVAL; /* getopt_long has said why */
    }
}

static int parse(int argc, char **argv, struct settings *settings)
{
    int option;

    while ((option = getopt_long(argc, argv, "h", options, NULL)) >= 0) {
        int r = parse_one(option, settings);
        if (r)
            return r;
    }
    if (optind < argc) {
        fprintf(stderr, "cloche-door: unexpected argument: '%s'\n", argv[optind]);
        return -EINVAL;
    }
    if (settings->has_uid != settings->has_gid) {
        fputs("cloche-door: --uid and --gid come together\n", stderr);
        return -EINVAL;
    }
    settings->config.to_user = settings->has_uid;
    return 0;
}

/* The answer is for people, and for the daemon to pass on: a line, and one that may help. */
static int check(const struct door_config *config)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    int r = door_check(config, &err);
    if (r < 0)
        fprintf(stderr, "%s\n%s%s", error_message(&err), err.hint ? err.hint : "",
                err.hint ? "\n" : "");
    return r;
}

static void on_ready(void *data _unused_)
{
    log_info("ready");
}

int main(int argc, char **argv)
{
    struct settings settings = {.config = DOOR_CONFIG_INIT, .log_level = LOG_INFO};
    _cleanup_error_ struct error err = ERROR_INIT;

    int r = parse(argc, argv, &settings);
    if (r == 0 && settings.check) {
        r = check(&settings.config);
    } else if (r == 0) {
        log_configure("cloche-door", STDERR_FILENO, settings.log_level, LOG_FORMAT_AUTO);
        r = door_serve(&settings.config, on_ready, NULL, &err);
        if (r < 0)
            log_failure(LOG_ERROR, &err, "cannot start");
    }
    strv_free(settings.config.listen);
    strv_free(settings.config.origins);
    return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
