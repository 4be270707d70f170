/*
 * The program that runs in a container, its names and its variables.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "spec.h"

enum { ENV_FILE_MAX = 1024 * 1024 };

static const char *const stream_words[] = {"stdin", "stdout", "stderr", NULL};

const struct option process_option_table[] = {
    {
        .name = "annotation",
        .kind = OPTION_LIST,
        .offset = offsetof(struct spec_options, annotations),
        .argument = "map",
        .help = "Pass an annotation to the runtime: KEY=value",
    },
    {
        .name = "attach",
        .short_name = 'a',
        .kind = OPTION_LIST,
        .offset = offsetof(struct spec_options, attach),
        .argument = "list",
        .help = "Attach to stdin, stdout or stderr only",
        .complete = COMPLETE_EXAMPLES,
        .choices = stream_words,
    },
    {
        .name = "cidfile",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct spec_options, cidfile),
        .argument = "string",
        .help = "Write the ID of the container to this file",
        .complete = COMPLETE_FILES,
    },
    {
        .name = "domainname",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct spec_options, domainname),
        .argument = "string",
        .help = "NIS domain name in the container",
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
        .name = "group-add",
        .kind = OPTION_LIST,
        .offset = offsetof(struct spec_options, group_add),
        .argument = "list",
        .help = "Further group of its user, name or number",
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
        .name = "init",
        .kind = OPTION_FLAG,
        .offset = offsetof(struct spec_options, init),
        .help = "Run it under an init that reaps processes",
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
        .name = "label-file",
        .kind = OPTION_LIST,
        .offset = offsetof(struct spec_options, label_file),
        .argument = "list",
        .help = "Attach labels from the lines of a file",
        .complete = COMPLETE_FILES,
    },
    {
        .name = "name",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct spec_options, name),
        .argument = "string",
        .help = "Name of the container (default: an invented one)",
    },
    {
        .name = "platform",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct spec_options, platform),
        .argument = "string",
        .help = "Platform of the image: os/architecture[/variant]",
    },
    {
        .name = "rm",
        .kind = OPTION_FLAG,
        .offset = offsetof(struct spec_options, remove),
        .help = "Remove the container when it has ended",
    },
    {
        .name = "runtime",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct spec_options, runtime),
        .argument = "string",
        .help = "Runtime: cloche-runtime, the only one",
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
        .name = "workdir",
        .short_name = 'w',
        .kind = OPTION_TEXT,
        .offset = offsetof(struct spec_options, workdir),
        .argument = "string",
        .help = "Working directory in the container",
    },
    {.name = NULL},
};

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

/* The lines of a file that say something. Owned by the caller. */
static int read_lines(const char *path, char ***ret, struct error *err)
{
    _cleanup_strv_ char **lines = NULL, **kept = NULL;
    _cleanup_free_ char *text = NULL;

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
        strv_append(&kept, line);
    }
    *ret = steal_ptr(kept);
    return 0;
}

int spec_add_env_file(char ***list, const char *path, struct error *err)
{
    _cleanup_strv_ char **lines = NULL;

    int r = read_lines(path, &lines, err);
    for (size_t i = 0; r >= 0 && lines && lines[i]; i++)
        spec_add_env(list, lines[i]);
    return r;
}

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

/* ---- labels */

static int build_labels(const struct spec_options *options, struct api_container_spec *spec,
                        struct error *err)
{
    for (char **path = options->label_file; path && *path; path++) {
        _cleanup_strv_ char **lines = NULL;
        int r = read_lines(*path, &lines, err);
        if (r < 0)
            return r;
        spec_fill_map(&spec->labels, lines);
    }
    for (char **label = options->labels; label && *label; label++)
        if (text_empty(*label) || (*label)[0] == '=')
            return error_set(err, -EINVAL, "invalid label '%s': empty name", *label);
    spec_fill_map(&spec->labels, options->labels);
    return 0;
}

/* ---- all of it */

bool spec_attaches(const struct spec_options *options, const char *stream)
{
    if (!options->attach)
        return !text_equal(stream, "stdin") || options->interactive;
    for (char **word = options->attach; *word; word++) {
        if (strcasecmp(*word, stream) == 0)
            return true;
    }
    return false;
}

static int check_streams(char *const *words, struct error *err)
{
    for (; words && *words; words++) {
        bool known = false;
        for (size_t i = 0; stream_words[i]; i++)
            known = known || strcasecmp(*words, stream_words[i]) == 0;
        if (!known)
            return error_set(err, -EINVAL,
                             "invalid argument \"%s\" for \"-a, --attach\" flag: valid streams are "
                             "STDIN, STDOUT and STDERR",
                             *words);
    }
    return 0;
}

int process_build(const struct spec_options *options, char *const *command,
                  struct api_container_spec *spec, struct error *err)
{
    int r = check_streams(options->attach, err);

    if (r >= 0)
        r = build_environment(options, spec, err);

    if (r >= 0)
        r = build_labels(options, spec, err);
    if (r < 0)
        return r;
    spec->name = xstrdup(options->name);
    spec->hostname = xstrdup(options->hostname);
    spec->domainname = xstrdup(options->domainname);
    spec->working_dir = xstrdup(options->workdir);
    spec->user = xstrdup(options->user);
    spec->platform = xstrdup(options->platform);
    spec->runtime = xstrdup(options->runtime);
    spec->stop_signal = xstrdup(options->stop_signal);
    spec->stop_timeout = (int32_t)options->stop_timeout.value;
    spec->has_stop_timeout = options->stop_timeout.set;
    spec->tty = spec->has_tty = options->tty;
    spec->init = spec->has_init = options->init;
    spec->open_stdin = spec->has_open_stdin = options->interactive;
    spec->auto_remove = spec->has_auto_remove = options->remove;
    spec_fill_list(&spec->group_add, &spec->group_add_count, options->group_add);
    spec_fill_map(&spec->annotations, options->annotations);
    if (options->entrypoint) {
        spec->entrypoint = xnew_array(char *, 2);
        spec->entrypoint_count = options->entrypoint[0] != '\0';
        spec->entrypoint[0] = spec->entrypoint_count ? xstrdup(options->entrypoint) : NULL;
    }
    if (*command)
        spec_fill_list(&spec->command, &spec->command_count, command);
    return 0;
}
