/* ARG and --build-arg: builder/dockerfile/buildargs.go of moby says which value counts. */
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

#include "planner.h"

/* Given without an ARG of theirs, for RUN alone. */
static const char *const proxies[] = {
    "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "FTP_PROXY",
    "ftp_proxy",  "NO_PROXY",   "no_proxy",    "ALL_PROXY",   "all_proxy",
};

void arguments_set(struct arguments *arguments, const char *name, const char *value)
{
    for (size_t i = 0; i < arguments->count; i++) {
        if (text_equal(arguments->items[i].name, name)) {
            set_text(&arguments->items[i].value, value);
            return;
        }
    }
    arguments->items = xrealloc(arguments->items, arguments->count + 1, sizeof(*arguments->items));
    arguments->items[arguments->count++] = (struct argument){xstrdup(name), xstrdup(value)};
}

const struct argument *arguments_find(const struct arguments *arguments, const char *name)
{
    for (size_t i = 0; i < arguments->count; i++) {
        if (text_equal(arguments->items[i].name, name))
            return &arguments->items[i];
    }
    return NULL;
}

void arguments_finish(struct arguments *arguments)
{
    for (size_t i = 0; i < arguments->count; i++) {
        free(arguments->items[i].name);
        free(arguments->items[i].value);
    }
    free(arguments->items);
    *arguments = (struct arguments){0};
}

const char *planner_argument(const struct planner *planner, const struct arguments *declared,
                             const char *name)
{
    const struct argument *given = arguments_find(&planner->given, name);
    const struct argument *own = arguments_find(declared, name);

    if (given)
        return given->value;
    if (own && own->value)
        return own->value;
    const struct argument *global = arguments_find(&planner->global, name);
    return global ? global->value : NULL;
}

/* Adds what is declared and has a value to the list, unless the environment has that name. */
static void add_declared(const struct planner *planner, const struct stage *stage, char ***list)
{
    for (size_t i = 0; i < stage->declared.count; i++) {
        const char *name = stage->declared.items[i].name;
        const char *value = planner_argument(planner, &stage->declared, name);
        if (value && !words_variable(stage->config->env, name))
            strv_take(list, xasprintf("%s=%s", name, value));
    }
}

char **planner_environment(const struct planner *planner, const struct stage *stage)
{
    char **list = strv_copy(stage->config->env);

    add_declared(planner, stage, &list);
    return list;
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

void planner_run_arguments(const struct planner *planner, const struct stage *stage, char ***shown,
                           char ***hidden)
{
    add_declared(planner, stage, shown);
    if (*shown)
        qsort(*shown, strv_length(*shown), sizeof(char *), compare);
    for (size_t i = 0; i < ARRAY_SIZE(proxies); i++) {
        const struct argument *given = arguments_find(&planner->given, proxies[i]);
        if (given && given->value && !arguments_find(&stage->declared, proxies[i]) &&
            !words_variable(stage->config->env, proxies[i]))
            strv_take(hidden, xasprintf("%s=%s", proxies[i], given->value));
    }
}
