#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <strings.h>

#include <base/alloc.h>
#include <base/text.h>

#include "changes.h"
#include "spec.h"

static void set_list(char ***list, size_t *count, char **value)
{
    strv_free(*list);
    *list = value ? value : xnew_array(char *, 1);
    *count = strv_length(value);
}

/* --- words ------------------------------------------------------------------------------------ */

/* Takes the next word off text: separated by blanks, with "double" and 'single' quotes and
 * backslashes. NULL at the end. Owned by the caller. */
static char *next_word(const char **text)
{
    struct buffer word = BUFFER_INIT;
    const char *at = *text;
    char quote = 0;

    while (isspace((unsigned char)*at))
        at++;
    if (!*at)
        return NULL;
    for (; *at && (quote || !isspace((unsigned char)*at)); at++) {
        if (*at == '\\' && quote != '\'' && at[1])
            buffer_append_char(&word, *++at);
        else if (quote ? *at == quote : *at == '"' || *at == '\'')
            quote = quote ? 0 : *at;
        else
            buffer_append_char(&word, *at);
    }
    *text = at;
    return buffer_steal(&word);
}

static char **words_of(const char *text)
{
    char **words = NULL;

    for (char *word; (word = next_word(&text));)
        strv_take(&words, word);
    return words;
}

/* ["a", "b"] or a line for the shell. */
static char **command_of(const char *text)
{
    _cleanup_buffer_ struct buffer document = BUFFER_INIT;
    struct oci_image_execution *parsed = NULL;
    char **command = NULL;

    if (text[0] == '[') {
        buffer_printf(&document, "{\"Cmd\":%s}", text);
        if (oci_image_execution_parse(document.data, document.length, NULL, &parsed, NULL) == 0) {
            command = strv_copy(parsed->cmd);
            oci_image_execution_free(parsed);
            return command;
        }
    }
    strv_append(&command, "/bin/sh");
    strv_append(&command, "-c");
    strv_append(&command, text);
    return command;
}

/* --- instructions ----------------------------------------------------------------------------- */

typedef int (*instruction)(struct oci_image_execution *config, const char *text, struct error *err);

static int change_cmd(struct oci_image_execution *config, const char *text, struct error *err)
{
    set_list(&config->cmd, &config->cmd_count, command_of(text));
    return 0;
}

static int change_entrypoint(struct oci_image_execution *config, const char *text,
                             struct error *err)
{
    set_list(&config->entrypoint, &config->entrypoint_count, command_of(text));
    return 0;
}

/* NAME=value ... or NAME value. Calls set for each. */
static int pairs(const char *text, const char *what,
                 void (*set)(struct oci_image_execution *, const char *, const char *),
                 struct oci_image_execution *config, struct error *err)
{
    _cleanup_strv_ char **words = words_of(text);

    if (words && words[0] && !strchr(words[0], '=') && words[1]) {
        const char *value = text + strlen(words[0]);
        while (isspace((unsigned char)*value))
            value++;
        set(config, words[0], value);
        return 0;
    }
    for (size_t i = 0; words && words[i]; i++) {
        char *equals = strchr(words[i], '=');
        if (!equals || equals == words[i])
            return error_set(err, -EINVAL, "%s: '%s' is not NAME=value", what, words[i]);
        *equals = '\0';
        set(config, words[i], equals + 1);
    }
    return 0;
}

static void set_env(struct oci_image_execution *config, const char *name, const char *value)
{
    _cleanup_free_ char *variable = xasprintf("%s=%s", name, value);
    char *const change[] = {variable, NULL};

    set_list(&config->env, &config->env_count, environment_merge(config->env, change));
}

static void set_label(struct oci_image_execution *config, const char *name, const char *value)
{
    json_string_map_set(&config->labels, name, value);
}

static int change_env(struct oci_image_execution *config, const char *text, struct error *err)
{
    return pairs(text, "ENV", set_env, config, err);
}

static int change_label(struct oci_image_execution *config, const char *text, struct error *err)
{
    return pairs(text, "LABEL", set_label, config, err);
}

static void set_text(char **field, const char *text)
{
    free(*field);
    *field = xstrdup(text);
}

static int change_user(struct oci_image_execution *config, const char *text, struct error *err)
{
    set_text(&config->user, text);
    return 0;
}

static int change_workdir(struct oci_image_execution *config, const char *text, struct error *err)
{
    _cleanup_free_ char *old = xstrdup(text_empty(config->working_dir) ? "/" : config->working_dir);

    if (text[0] == '/') {
        set_text(&config->working_dir, text);
        return 0;
    }
    free(config->working_dir);
    config->working_dir = xasprintf("%s%s%s", old, text_ends_with(old, "/") ? "" : "/", text);
    return 0;
}

static int change_stopsignal(struct oci_image_execution *config, const char *text,
                             struct error *err)
{
    if (signal_parse(text, err) < 0)
        return -EINVAL;
    set_text(&config->stop_signal, text);
    return 0;
}

static void set_add(struct oci_image_set **set, const char *name)
{
    if (!*set)
        *set = xnew(struct oci_image_set);
    for (size_t i = 0; i < (*set)->count; i++) {
        if (text_equal((*set)->keys[i], name))
            return;
    }
    size_t count = (*set)->count + 1;
    (*set)->keys = xrealloc((*set)->keys, count, sizeof(char *));
    (*set)->values = xrealloc((*set)->values, count, sizeof(*(*set)->values));
    (*set)->keys[count - 1] = xstrdup(name);
    (*set)->values[count - 1] = xnew(struct oci_image_empty);
    (*set)->count = count;
}

static int change_expose(struct oci_image_execution *config, const char *text, struct error *err)
{
    _cleanup_strv_ char **words = words_of(text);

    for (size_t i = 0; words && words[i]; i++) {
        const char *slash = strchr(words[i], '/');
        _cleanup_free_ char *digits =
            slash ? xstrndup(words[i], (size_t)(slash - words[i])) : xstrdup(words[i]);
        uint64_t port;
        if (text_to_u64(digits, 1, UINT16_MAX, &port) < 0 ||
            (slash && !text_equal(slash, "/tcp") && !text_equal(slash, "/udp")))
            return error_set(err, -EINVAL, "EXPOSE: '%s' is not PORT[/tcp|udp]", words[i]);
        _cleanup_free_ char *name = xasprintf("%s%s", words[i], slash ? "" : "/tcp");
        set_add(&config->exposed_ports, name);
    }
    return 0;
}

static int change_volume(struct oci_image_execution *config, const char *text, struct error *err)
{
    _cleanup_strv_ char **paths = text[0] == '[' ? command_of(text) : words_of(text);

    for (size_t i = 0; paths && paths[i]; i++)
        set_add(&config->volumes, paths[i]);
    return 0;
}

static const struct {
    const char *name;
    instruction apply;
} instructions[] = {
    {"CMD", change_cmd},       {"ENTRYPOINT", change_entrypoint}, {"ENV", change_env},
    {"EXPOSE", change_expose}, {"LABEL", change_label},           {"STOPSIGNAL", change_stopsignal},
    {"USER", change_user},     {"VOLUME", change_volume},         {"WORKDIR", change_workdir},
};

int change_apply(struct oci_image_execution *config, const char *text, struct error *err)
{
    size_t length = strcspn(text, " \t=");
    const char *rest = text + length;

    while (isspace((unsigned char)*rest) || *rest == '=')
        rest++;
    for (size_t i = 0; i < ARRAY_SIZE(instructions); i++) {
        if (strlen(instructions[i].name) == length &&
            strncasecmp(instructions[i].name, text, length) == 0) {
            if (!*rest)
                return error_set(err, -EINVAL, "%s requires an argument", instructions[i].name);
            return instructions[i].apply(config, rest, err);
        }
    }
    return error_set(err, -EINVAL, "'%.*s' is not a valid change command", (int)length, text);
}
