#include <ctype.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "spec.h"

enum { ENV_FILE_MAX = 1024 * 1024, CPU_DIGITS = 9 };

static int parse_size(const char *text, void *value, struct error *err)
{
    if (text_to_size(text, value) < 0)
        return error_set(err, -EINVAL, "invalid size: '%s'", text);
    return 0;
}

int spec_parse_cpus(const char *text, void *value, struct error *err)
{
    uint64_t whole = 0, fraction = 0;
    const char *c = text;
    int digits = 0;

    for (; isdigit((unsigned char)*c) && whole < UINT32_MAX; c++)
        whole = whole * 10 + (uint64_t)(*c - '0');
    if (*c == '.') {
        for (c++; isdigit((unsigned char)*c); c++, digits++) {
            if (digits < CPU_DIGITS)
                fraction = fraction * 10 + (uint64_t)(*c - '0');
        }
    }
    if (*c || c == text || text_equal(text, ".") || whole >= UINT32_MAX)
        return error_set(err, -EINVAL, "failed to parse %s as a number of CPUs", text);
    if (digits > CPU_DIGITS)
        return error_set(err, -ERANGE, "value is too precise");
    for (; digits < CPU_DIGITS; digits++)
        fraction *= 10;
    *(uint64_t *)value = whole * 1000000000 + fraction;
    return 0;
}

static const char *const networks[] = {"bridge", "none", "host", NULL};

const struct option spec_option_table[] = {
    {
        .name = "cpus",
        .kind = OPTION_PARSED,
        .offset = offsetof(struct spec_options, nano_cpus),
        .argument = "decimal",
        .help = "Number of CPUs it may use, with a fraction",
        .parse = spec_parse_cpus,
    },
    {
        .name = "entrypoint",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct spec_options, entrypoint),
        .argument = "string",
        .help = "Replace the image's entry point; \"\" removes it",
    },
    {
        .name = "env",
        .short_name = 'e',
        .kind = OPTION_LIST,
        .offset = offsetof(struct spec_options, env),
        .argument = "list",
        .help = "Set an environment variable: NAME=value, or NAME to pass ours on",
    },
    {
        .name = "env-file",
        .kind = OPTION_LIST,
        .offset = offsetof(struct spec_options, env_file),
        .argument = "list",
        .help = "Set environment variables from the lines of a file",
        .complete = COMPLETE_FILES,
    },
    {
        .name = "hostname",
        .short_name = 'h',
        .kind = OPTION_TEXT,
        .offset = offsetof(struct spec_options, hostname),
        .argument = "string",
        .help = "Host name in the container (default: its short ID)",
    },
    {
        .name = "interactive",
        .short_name = 'i',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct spec_options, interactive),
        .help = "Keep standard input open",
    },
    {
        .name = "label",
        .short_name = 'l',
        .kind = OPTION_LIST,
        .offset = offsetof(struct spec_options, labels),
        .argument = "list",
        .help = "Attach a label: KEY=value",
    },
    {
        .name = "memory",
        .short_name = 'm',
        .kind = OPTION_PARSED,
        .offset = offsetof(struct spec_options, memory),
        .argument = "bytes",
        .help = "Memory it may use, with b, k, m or g as unit",
        .parse = parse_size,
    },
    {
        .name = "name",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct spec_options, name),
        .argument = "string",
        .help = "Name of the container (default: an invented one)",
    },
    {
        .name = "network",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct spec_options, network),
        .argument = "string",
        .help = "Network: bridge, none or host (default \"bridge\")",
        .complete = COMPLETE_CHOICES,
        .choices = networks,
    },
    {
        .name = "pids-limit",
        .kind = OPTION_NUMBER,
        .offset = offsetof(struct spec_options, pids_limit),
        .argument = "int",
        .help = "Number of processes and threads it may have (-1: unlimited)",
        .minimum = -1,
        .maximum = INT64_MAX,
    },
    {
        .name = "publish",
        .short_name = 'p',
        .kind = OPTION_LIST,
        .offset = offsetof(struct spec_options, publish),
        .argument = "list",
        .help = "Publish a port: [ADDRESS:][HOST-PORT:]PORT[/udp]",
    },
    {
        .name = "read-only",
        .kind = OPTION_FLAG,
        .offset = offsetof(struct spec_options, read_only),
        .help = "Mount the root file system read-only",
    },
    {
        .name = "rm",
        .kind = OPTION_FLAG,
        .offset = offsetof(struct spec_options, remove),
        .help = "Remove the container when it has ended",
    },
    {
        .name = "stop-signal",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct spec_options, stop_signal),
        .argument = "string",
        .help = "Signal that stops it (default: the image's, else SIGTERM)",
        .complete = COMPLETE_SIGNALS,
    },
    {
        .name = "stop-timeout",
        .kind = OPTION_NUMBER,
        .offset = offsetof(struct spec_options, stop_timeout),
        .argument = "int",
        .help = "Seconds from the stop signal to SIGKILL (default 10; -1: never)",
        .minimum = -1,
        .maximum = INT32_MAX,
    },
    {
        .name = "tty",
        .short_name = 't',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct spec_options, tty),
        .help = "Give it a terminal",
    },
    {
        .name = "user",
        .short_name = 'u',
        .kind = OPTION_TEXT,
        .offset = offsetof(struct spec_options, user),
        .argument = "string",
        .help = "User and group, names or numbers: USER[:GROUP]",
    },
    {
        .name = "volume",
        .short_name = 'v',
        .kind = OPTION_LIST,
        .offset = offsetof(struct spec_options, volumes),
        .argument = "list",
        .help = "Mount a path of this machine: /HERE:/THERE[:ro]",
        .complete = COMPLETE_FILES,
    },
    {
        .name = "workdir",
        .short_name = 'w',
        .kind = OPTION_TEXT,
        .offset = offsetof(struct spec_options, workdir),
        .argument = "string",
        .help = "Working directory in the container",
    },
    {.name = NULL},
};

/* ---- ports */

struct port_range {
    uint16_t first, last;
};

/* "80" or "80-90"; "" is 0-0 where that is allowed. */
static int parse_range(const char *text, bool may_be_empty, struct port_range *ret)
{
    const char *dash = strchr(text, '-');
    _cleanup_free_ char *first = xstrndup(text, dash ? (size_t)(dash - text) : strlen(text));
    uint64_t from = 0, to = 0;

    if (!text[0]) {
        *ret = (struct port_range){0, 0};
        return may_be_empty ? 0 : -EINVAL;
    }
    if (text_to_u64(first, may_be_empty ? 0 : 1, UINT16_MAX, &from) < 0)
        return -EINVAL;
    to = from;
    if (dash && text_to_u64(dash + 1, from, UINT16_MAX, &to) < 0)
        return -EINVAL;
    *ret = (struct port_range){(uint16_t)from, (uint16_t)to};
    return 0;
}

static void append_port(struct api_container_spec *spec, const char *address, uint16_t host,
                        uint16_t container, const char *protocol)
{
    struct api_port *port = xnew(struct api_port);

    port->host_address = text_empty(address) ? NULL : xstrdup(address);
    port->host_port = host;
    port->has_host_port = host != 0;
    port->container_port = container;
    port->protocol = xstrdup(protocol);
    spec->ports = xrealloc(spec->ports, spec->ports_count + 1, sizeof(struct api_port *));
    spec->ports[spec->ports_count++] = port;
}

int spec_add_port(struct api_container_spec *spec, const char *text, struct error *err)
{
    _cleanup_free_ char *words = xstrdup(text);
    const char *address = "", *host = "", *protocol = "tcp";
    struct port_range here, there;

    char *slash = strchr(words, '/');
    if (slash) {
        *slash = '\0';
        protocol = slash + 1;
    }
    if (!text_equal(protocol, "tcp") && !text_equal(protocol, "udp"))
        return error_set(err, -EINVAL, "invalid proto: %s", protocol);
    char *container = strrchr(words, ':');
    if (container) {
        *container++ = '\0';
        char *colon = strrchr(words, ':');
        host = colon ? colon + 1 : words;
        if (colon) {
            *colon = '\0';
            address = words;
        }
    }
    if (parse_range(container ? container : words, false, &there) < 0)
        return error_set(err, -EINVAL, "invalid containerPort: %s", container ? container : words);
    if (parse_range(host, true, &here) < 0)
        return error_set(err, -EINVAL, "invalid hostPort: %s", host);
    unsigned count = there.last - there.first;
    if (here.first && (unsigned)(here.last - here.first) != count)
        return error_set(err, -EINVAL,
                         "invalid ranges specified for container and host Ports: "
                         "%s and %s",
                         container ? container : words, host);
    for (unsigned i = 0; i <= count; i++)
        append_port(spec, address, (uint16_t)(here.first ? here.first + i : 0),
                    (uint16_t)(there.first + i), protocol);
    return 0;
}

/* ---- mounts */

static int resolve_source(const char *text, char **ret, struct error *err)
{
    if (text[0] == '/') {
        *ret = xstrdup(text);
        return 0;
    }
    if (text[0] != '.')
        return error_set(err, -EINVAL,
                         "\"%s\" is the name of a volume, and there are no named volumes: give a "
                         "path of this machine (/... or ./...)",
                         text);
    _cleanup_free_ char *here = getcwd(NULL, 0);
    if (!here)
        return error_errno(err, errno, "find the working directory");
    _cleanup_free_ char *joined = xasprintf("%s/%s", here, text);
    char *resolved = realpath(joined, NULL);
    *ret = resolved ? resolved : steal_ptr(joined);
    return 0;
}

static void set_bind_options(struct api_bind *bind, const char *text)
{
    _cleanup_strv_ char **words = strv_split(text, ',');

    for (size_t i = 0; words && words[i]; i++) {
        if (text_equal(words[i], "ro") || text_equal(words[i], "rw")) {
            bind->read_only = words[i][1] == 'o';
            bind->has_read_only = true;
        } else {
            strv_append(&bind->options, words[i]);
            bind->options_count++;
        }
    }
}

int spec_add_bind(struct api_container_spec *spec, const char *text, struct error *err)
{
    _cleanup_strv_ char **parts = strv_split(text, ':');
    _cleanup_free_ char *source = NULL;
    size_t count = strv_length(parts);

    if (count == 1 && parts[0][0] == '/')
        return error_set(err, -EINVAL,
                         "\"%s\" asks for an anonymous volume, and there are none: give a path of "
                         "this machine (/here:/there)",
                         text);
    if (count < 2 || count > 3 || !parts[0][0])
        return error_set(err, -EINVAL, "invalid volume specification: '%s'", text);
    if (parts[1][0] != '/')
        return error_set(err, -EINVAL,
                         "invalid volume specification: '%s': mount path must be absolute", text);
    int r = resolve_source(parts[0], &source, err);
    if (r < 0)
        return r;
    struct api_bind *bind = xnew(struct api_bind);
    bind->source = steal_ptr(source);
    bind->target = xstrdup(parts[1]);
    if (count == 3)
        set_bind_options(bind, parts[2]);
    spec->binds = xrealloc(spec->binds, spec->binds_count + 1, sizeof(struct api_bind *));
    spec->binds[spec->binds_count++] = bind;
    return 0;
}

/* ---- environment */

void spec_add_env(char ***list, const char *text)
{
    if (strchr(text, '=')) {
        strv_append(list, text);
        return;
    }
    const char *ours = getenv(text);
    if (ours)
        strv_take(list, xasprintf("%s=%s", text, ours));
}

int spec_add_env_file(char ***list, const char *path, struct error *err)
{
    _cleanup_free_ char *text = NULL;
    _cleanup_strv_ char **lines = NULL;

    int r = file_read_at(AT_FDCWD, path, ENV_FILE_MAX, &text, NULL, err);
    if (r < 0)
        return r;
    lines = strv_split(text, '\n');
    for (size_t i = 0; lines && lines[i]; i++) {
        const char *line = lines[i] + strspn(lines[i], " \t");
        lines[i][strcspn(lines[i], "\r")] = '\0';
        size_t name = strcspn(line, "=");
        if (!line[0] || line[0] == '#')
            continue;
        if (!name || strcspn(line, " \t") < name)
            return error_set(err, -EINVAL, "%s:%zu: the name of a variable is empty or has blanks",
                             path, i + 1);
        spec_add_env(list, line);
    }
    return 0;
}

/* ---- all of it */

static int build_environment(const struct spec_options *options, struct api_container_spec *spec,
                             struct error *err)
{
    for (char **path = options->env_file; path && *path; path++) {
        int r = spec_add_env_file(&spec->env, *path, err);
        if (r < 0)
            return r;
    }
    for (char **text = options->env; text && *text; text++) {
        if ((*text)[0] == '=' || !(*text)[0])
            return error_set(err, -EINVAL, "invalid environment variable: %s", *text);
        spec_add_env(&spec->env, *text);
    }
    spec->env_count = strv_length(spec->env);
    return 0;
}

static void build_labels(const struct spec_options *options, struct api_container_spec *spec)
{
    for (char **label = options->labels; label && *label; label++) {
        size_t length = strcspn(*label, "=");
        _cleanup_free_ char *key = xstrndup(*label, length);
        json_string_map_set(&spec->labels, key, (*label)[length] ? *label + length + 1 : "");
    }
}

static void build_limits(const struct spec_options *options, struct api_container_spec *spec)
{
    struct api_resources *resources = spec->resources = xnew(struct api_resources);

    resources->memory = options->memory;
    resources->has_memory = options->memory != 0;
    resources->nano_cpus = options->nano_cpus;
    resources->has_nano_cpus = options->nano_cpus != 0;
    resources->pids_limit = options->pids_limit.value;
    resources->has_pids_limit = options->pids_limit.set;
    spec->stop_timeout = (int32_t)options->stop_timeout.value;
    spec->has_stop_timeout = options->stop_timeout.set;
}

static void build_process(const struct spec_options *options, char *const *command,
                          struct api_container_spec *spec)
{
    spec->working_dir = xstrdup(options->workdir);
    spec->user = xstrdup(options->user);
    spec->tty = spec->has_tty = options->tty;
    spec->open_stdin = spec->has_open_stdin = options->interactive;
    if (options->entrypoint) {
        spec->entrypoint = xnew_array(char *, 2);
        spec->entrypoint_count = options->entrypoint[0] != '\0';
        spec->entrypoint[0] = spec->entrypoint_count ? xstrdup(options->entrypoint) : NULL;
    }
    if (*command) {
        spec->command = strv_copy(command);
        spec->command_count = strv_length(command);
    }
}

int spec_build(const struct spec_options *options, char *const *operands,
               struct api_container_spec **ret, struct error *err)
{
    _cleanup_api_container_spec_ struct api_container_spec *spec = xnew(struct api_container_spec);
    int r = build_environment(options, spec, err);

    for (char **text = options->publish; r >= 0 && text && *text; text++)
        r = spec_add_port(spec, *text, err);
    for (char **text = options->volumes; r >= 0 && text && *text; text++)
        r = spec_add_bind(spec, *text, err);
    if (r < 0)
        return r;
    spec->image = xstrdup(operands[0]);
    spec->name = xstrdup(options->name);
    spec->hostname = xstrdup(options->hostname);
    spec->network_mode = xstrdup(options->network);
    spec->stop_signal = xstrdup(options->stop_signal);
    spec->read_only_root = spec->has_read_only_root = options->read_only;
    spec->auto_remove = spec->has_auto_remove = options->remove;
    build_labels(options, spec);
    build_limits(options, spec);
    build_process(options, operands + 1, spec);
    *ret = steal_ptr(spec);
    return 0;
}
