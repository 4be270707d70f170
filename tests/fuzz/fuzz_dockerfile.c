/*
 * Dockerfiles and .dockerignore. The input is a Dockerfile, planned without and with a base; behind
 * a zero byte stand lines of a .dockerignore, each of which is asked about the paths that follow.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/error.h>
#include <base/text.h>
#include <dockerfile/ignore.h>
#include <dockerfile/plan.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Every name that the Dockerfile stands on is an image with variables and triggers. */
static void plan_whole(const char *text, size_t length, struct build_plan *first)
{
    char *env[] = {(char *)"PATH=/bin", (char *)"A=1 2", NULL};
    char *triggers[] = {(char *)"ENV B=$A", (char *)"COPY . /x", NULL};
    char *arguments[] = {(char *)"G=given", (char *)"HTTP_PROXY=p", NULL};
    struct oci_image_execution config = {
        .env = env, .env_count = 2, .on_build = triggers, .on_build_count = 2};
    struct build_base **bases = xnew_array(struct build_base *, first->stages_count + 1);
    struct build_options options = {
        .dockerfile = (char *)"Dockerfile",
        .arguments = arguments,
        .arguments_count = 2,
        .platform = (char *)"linux/amd64",
        .bases = bases,
        .bases_count = first->stages_count,
    };
    struct error err = ERROR_INIT;
    struct build_plan *plan = NULL;

    for (size_t i = 0; i < first->stages_count; i++) {
        const struct build_stage *stage = first->stages[i];
        bases[i] = xnew(struct build_base);
        bases[i]->name = stage->image ? stage->image : (char *)"";
        bases[i]->platform = stage->platform;
        bases[i]->config = &config;
    }
    int r = plan_make(text, length, &options, &plan, &err);
    if (r < 0 && (!err.code || !err.message)) /* a failure that says nothing */
        abort();
    if (r == 0) {
        struct buffer out = BUFFER_INIT;
        build_plan_write(plan, &out);
        buffer_finish(&out);
    }
    build_plan_free(plan);
    error_finish(&err);
    for (size_t i = 0; i < first->stages_count; i++)
        free(bases[i]);
    free(bases);
}

static void ask_ignore(const char *text, size_t length)
{
    struct ignore *ignore = NULL;
    char *copy = xstrndup(text, length);
    char **paths = strv_split(copy, '\n');

    if (ignore_parse(text, length, &ignore, NULL) == 0) {
        for (size_t i = 0; paths && paths[i] && i < 16; i++)
            ignore_matches(ignore, paths[i]);
    }
    ignore_free(ignore);
    strv_free(paths);
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data, *zero = size ? memchr(text, '\0', size) : NULL;
    size_t length = zero ? (size_t)(zero - text) : size;
    struct build_options options = {.dockerfile = (char *)"Dockerfile"};
    struct build_plan *plan = NULL;
    struct error err = ERROR_INIT;

    int r = plan_make(text ? text : "", length, &options, &plan, &err);
    if (r < 0 && (!err.code || !err.message))
        abort();
    if (r == 0)
        plan_whole(text, length, plan);
    build_plan_free(plan);
    error_finish(&err);
    if (zero)
        ask_ignore(zero + 1, size - length - 1);
    return 0;
}
