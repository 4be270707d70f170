#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <unistd.h>

#include <base/text.h>

#include "options.h"

enum { FD_MAX = 1024 };

static const char usage[] =
    "Usage: cloched [OPTION...]\n"
    "\n"
    "The Cloche daemon: keeps containers, images and their network, and answers the `cloche`\n"
    "command on a socket. Containers go on while it is away.\n"
    "\n"
    "  --instance NAME      work on a private instance (default: $CLOCHE_INSTANCE)\n"
    "  --root DIR           keep images and containers in DIR\n"
    "  --config FILE        read FILE (default: $CLOCHE_CONFIG, else /etc/cloche/cloched.conf)\n"
    "  --check-config       say whether the configuration is right, and end\n"
    "  --log-level LEVEL    error, warning, info (default) or debug\n"
    "  --log-format FORMAT  text, json, or auto (default): text on a terminal\n"
    "  --foreground         stay in the foreground (what it does anyhow)\n"
    "  --ready-fd N         write '1' to descriptor N when requests are answered\n"
    "  --version            print the version\n"
    "  --help               print this\n";

enum {
    OPT_INSTANCE = 256,
    OPT_ROOT,
    OPT_CONFIG,
    OPT_CHECK_CONFIG,
    OPT_LEVEL,
    OPT_FORMAT,
    OPT_FOREGROUND,
    OPT_READY,
    OPT_VERSION
};

static const struct option options[] = {
    {"instance", required_argument, NULL, OPT_INSTANCE},
    {"root", required_argument, NULL, OPT_ROOT},
    {"config", required_argument, NULL, OPT_CONFIG},
    {"check-config", no_argument, NULL, OPT_CHECK_CONFIG},
    {"log-level", required_argument, NULL, OPT_LEVEL},
    {"log-format", required_argument, NULL, OPT_FORMAT},
    {"foreground", no_argument, NULL, OPT_FOREGROUND},
    {"ready-fd", required_argument, NULL, OPT_READY},
    {"version", no_argument, NULL, OPT_VERSION},
    {"help", no_argument, NULL, 'h'},
    {0},
};

static int complain(const char *what, const char *value)
{
    fprintf(stderr, "cloched: %s: '%s'\n", what, value);
    return -EINVAL;
}

static int choose(const char *value, const char *const *names, int count, const char *what)
{
    for (int i = 0; i < count; i++) {
        if (text_equal(names[i], value))
            return i;
    }
    return complain(what, value);
}

static int parse_level(const char *value, struct options *ret)
{
    static const char *const names[] = {[LOG_ERROR] = "error",
                                        [LOG_WARNING] = "warning",
                                        [LOG_INFO] = "info",
                                        [LOG_DEBUG] = "debug"};
    int chosen = choose(value, names, ARRAY_SIZE(names), "unknown log level");

    ret->log_level = (enum log_level)chosen;
    return chosen < 0 ? chosen : 0;
}

static int parse_format(const char *value, struct options *ret)
{
    static const char *const names[] = {
        [LOG_FORMAT_AUTO] = "auto", [LOG_FORMAT_TEXT] = "text", [LOG_FORMAT_JSON] = "json"};
    int chosen = choose(value, names, ARRAY_SIZE(names), "unknown log format");

    ret->log_format = (enum log_format)chosen;
    return chosen < 0 ? chosen : 0;
}

static int parse_fd(const char *value, struct options *ret)
{
    int64_t fd;

    if (text_to_i64(value, 3, FD_MAX, &fd) < 0)
        return complain("not a descriptor number", value);
    ret->ready_fd = (int)fd;
    return 0;
}

static int parse_one(int option, struct options *ret)
{
    switch (option) {
    case OPT_INSTANCE:
        ret->instance = optarg;
        return 0;
    case OPT_ROOT:
        ret->root = optarg;
        return 0;
    case OPT_CONFIG:
        ret->config = optarg;
        return 0;
    case OPT_CHECK_CONFIG:
        ret->check_config = true;
        return 0;
    case OPT_LEVEL:
        return parse_level(optarg, ret);
    case OPT_FORMAT:
        return parse_format(optarg, ret);
    case OPT_FOREGROUND:
        return 0;
    case OPT_READY:
        return parse_fd(optarg, ret);
    case OPT_VERSION:
        printf("cloched version %s\n", CLOCHE_VERSION);
        return 1;
    case 'h':
        fputs(usage, stdout);
        return 1;
    default:
        return -EINVAL; /* getopt_long has said why */
    }
}

int options_parse(int argc, char **argv, struct options *ret)
{
    int option;

    *ret = (struct options){.log_level = LOG_INFO, .ready_fd = -1};
    while ((option = getopt_long(argc, argv, "h", options, NULL)) >= 0) {
        int r = parse_one(option, ret);
        if (r)
            return r;
    }
    if (optind < argc)
        return complain("unexpected argument", argv[optind]);
    return 0;
}
