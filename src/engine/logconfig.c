#include "logconfig.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <monitor/protocol.h>

enum {
    LOG_SIZE_DEFAULT = 16 * 1024 * 1024,
    LOG_FILES_DEFAULT = 3,
    LOG_SIZE_MIN = 1024,
    /* Without a log: attached clients are still served from one. */
    LOG_SIZE_NONE = 1024 * 1024,
};

/* They name what of the container stands beside each line: logs --details. */
static const char *const shown[] = {"labels", "env"};

static const char *const drivers[] = {"json-file", "local", "none"};

/* Options of docker's json-file and local that say what else is written beside the text, or how it
 * is passed on: nobody here would read or notice it. */
static const char *const without_effect[] = {
    "labels-regex", "env-regex", "tag", "mode", "max-buffer-size",
};

static bool is_one_of(const char *text, const char *const *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (text_equal(text, list[i]))
            return true;
    }
    return false;
}

static const char *driver_of(const struct api_log_config *config)
{
    return config && !text_empty(config->type) ? config->type : "json-file";
}

static int parse_size(const char *text, uint64_t *ret, struct error *err)
{
    if (text_equal(text, "-1")) {
        *ret = 0;
        return 0;
    }
    if (text_to_size(text, ret) < 0 || *ret < LOG_SIZE_MIN)
        return error_set(err, -EINVAL,
                         "invalid value for max-size: '%s'; a size of at least 1k, or -1 for none",
                         text);
    return 0;
}

static int parse_files(const char *text, uint64_t *ret, struct error *err)
{
    if (text_to_u64(text, 1, MONITOR_LOG_FILES_MAX, ret) < 0)
        return error_set(err, -EINVAL,
                         "invalid value for max-file: '%s'; max-file cannot be less than 1, nor "
                         "more than %d",
                         text, MONITOR_LOG_FILES_MAX);
    return 0;
}

/* As Go reads flags, which docker's drivers do. */
static int parse_flag(const char *text, bool *ret, struct error *err)
{
    static const char *const yes[] = {"1", "t", "T", "true", "TRUE", "True"};
    static const char *const no[] = {"0", "f", "F", "false", "FALSE", "False"};

    *ret = is_one_of(text, yes, ARRAY_SIZE(yes));
    if (*ret || is_one_of(text, no, ARRAY_SIZE(no)))
        return 0;
    return error_set(err, -EINVAL, "invalid value for compress: '%s'; true or false", text);
}

static int check_option(const char *driver, const char *name, const char *value, struct error *err)
{
    uint64_t number;

    if (text_equal(name, "max-size"))
        return parse_size(value, &number, err);
    if (text_equal(name, "max-file"))
        return parse_files(value, &number, err);
    if (text_equal(name, "compress"))
        return parse_flag(value, &(bool){false}, err);
    if (is_one_of(name, shown, ARRAY_SIZE(shown)) ||
        is_one_of(name, without_effect, ARRAY_SIZE(without_effect)))
        return 0;
    return error_set(err, -EINVAL, "unknown log opt '%s' for %s log driver", name, driver);
}

/* dockerd's words. */
static int check_together(const struct api_log_config *config, struct error *err)
{
    uint64_t size;
    uint32_t files;

    log_config_limits(config, &size, &files);
    if (log_config_compresses(config) && (files < 2 || size == 0))
        return error_set(err, -EINVAL,
                         "compress cannot be true when max-file is less than 2 or max-size is not "
                         "set");
    return 0;
}

int log_config_check(const struct api_log_config *config, struct error *err)
{
    const char *driver = driver_of(config);
    const struct json_string_map *options = config ? config->config : NULL;
    int r = 0;

    if (!is_one_of(driver, drivers, ARRAY_SIZE(drivers))) {
        error_set(err, -EINVAL, "logger: no log driver named '%s' is registered", driver);
        return error_hint(err, "There are json-file, local (both our own files) and none"), -EINVAL;
    }
    for (size_t i = 0; options && r == 0 && i < options->count; i++)
        r = check_option(driver, options->keys[i], options->values[i], err);
    return r == 0 && log_config_readable(config) ? check_together(config, err) : r;
}

void log_config_warnings(const struct api_log_config *config, char ***warnings)
{
    const struct json_string_map *options = config ? config->config : NULL;

    for (size_t i = 0; options && i < options->count; i++) {
        if (is_one_of(options->keys[i], without_effect, ARRAY_SIZE(without_effect)))
            strv_take(warnings, xasprintf("The log option %s has no effect", options->keys[i]));
    }
}

void log_config_limits(const struct api_log_config *config, uint64_t *ret_size, uint32_t *ret_files)
{
    const struct json_string_map *options = config ? config->config : NULL;
    const char *size = options ? json_string_map_get(options, "max-size") : NULL;
    const char *files = options ? json_string_map_get(options, "max-file") : NULL;
    uint64_t files_number = LOG_FILES_DEFAULT;

    *ret_size = LOG_SIZE_DEFAULT;
    if (size)
        parse_size(size, ret_size, NULL);
    if (files)
        parse_files(files, &files_number, NULL);
    *ret_files = (uint32_t)files_number;
    if (!log_config_readable(config)) {
        *ret_size = LOG_SIZE_NONE;
        *ret_files = 1;
    }
}

/* docker's local driver does so where nothing else is said; ours only when it is asked for. */
bool log_config_compresses(const struct api_log_config *config)
{
    const struct json_string_map *options = config ? config->config : NULL;
    const char *text = options ? json_string_map_get(options, "compress") : NULL;
    bool compresses = false;

    return text && log_config_readable(config) && parse_flag(text, &compresses, NULL) == 0 &&
           compresses;
}

bool log_config_readable(const struct api_log_config *config)
{
    return !text_equal(driver_of(config), "none");
}

/* ---- what stands beside each line ---- */

static const char *label_of(const struct api_container_spec *spec, const char *name)
{
    return spec->labels ? json_string_map_get(spec->labels, name) : NULL;
}

static const char *variable_of(const struct api_container_spec *spec, const char *name)
{
    const char *value = NULL;
    size_t length = strlen(name);

    for (size_t i = 0; i < spec->env_count; i++)
        if (text_starts_with(spec->env[i], name) && spec->env[i][length] == '=')
            value = spec->env[i] + length + 1;
    return value;
}

static void append_escaped(struct buffer *out, const char *text)
{
    static const char plain[] = "-_.~";

    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if ((c < 0x80 && isalnum(c)) || strchr(plain, c))
            buffer_append_char(out, *text);
        else if (c == ' ')
            buffer_append_char(out, '+');
        else
            buffer_printf(out, "%%%02X", c);
    }
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static char **split_option(const struct api_container_spec *spec, const char *name)
{
    const struct json_string_map *options = spec->log_config ? spec->log_config->config : NULL;
    const char *list = options ? json_string_map_get(options, name) : NULL;

    return list ? strv_split(list, ',') : NULL;
}

/* A variable stands before a label of its name, as in docker. */
char *log_config_attributes(const struct api_container_spec *spec)
{
    _cleanup_strv_ char **labels = split_option(spec, "labels");
    _cleanup_strv_ char **variables = split_option(spec, "env");
    _cleanup_strv_ char **names = NULL;
    struct buffer out = BUFFER_INIT;

    for (size_t i = 0; labels && labels[i]; i++)
        strv_append(&names, labels[i]);
    for (size_t i = 0; variables && variables[i]; i++)
        strv_append(&names, variables[i]);
    if (names)
        qsort(names, strv_length(names), sizeof(*names), compare);
    for (size_t i = 0; names && names[i]; i++) {
        const char *value = strv_contains(variables, names[i]) ? variable_of(spec, names[i]) : NULL;
        if (!value && strv_contains(labels, names[i]))
            value = label_of(spec, names[i]);
        if (!value || (i && text_equal(names[i], names[i - 1])))
            continue;
        if (out.length)
            buffer_append_char(&out, ',');
        append_escaped(&out, names[i]);
        buffer_append_char(&out, '=');
        append_escaped(&out, value);
    }
    return buffer_steal(&out);
}
