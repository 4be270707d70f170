/*
 * One stage, step by step: what was built before is found by its key, everything else is made, and
 * becomes an image that the next step stands on.
 */
#include <errno.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <store/build.h>

#include "build.h"

enum { KEY_SIZE = 72 };

static const char *short_id(const char *id)
{
    return text_starts_with(id, "sha256:") ? id + 7 : id;
}

/* FROM scratch: an image without layers, the same for all. */
static int begin_empty(struct build_work *work, const char *asked, struct error *err)
{
    static const struct oci_image_execution nothing;
    _cleanup_free_ char *platform = NULL;
    int r = build_platform(asked ? asked : work->build->platform, &platform, err);

    if (r < 0)
        return r;
    const char *slash = strchr(platform, '/');
    _cleanup_free_ char *os = xstrndup(platform, (size_t)(slash - platform));
    _cleanup_free_ char *architecture = xstrndup(slash + 1, strcspn(slash + 1, "/"));
    const struct store_step step = {
        .build = work->build->number, .os = os, .architecture = architecture, .config = &nothing};

    return store_build_step(work->build->engine->store, NULL, &step, &work->image_id, err);
}

static int begin_stage(struct build_work *work, const struct build_stage *stage, struct error *err)
{
    struct build *build = work->build;
    struct build_output *output = &build->output;
    const struct build_image *image;
    int r = 0;

    build_say(output, work->index, "Step %u/%u : %s\n", stage->number, build->plan->total,
              stage->text);
    if (stage->has_stage) {
        work->image_id = xstrdup(build->stages[stage->stage].image_id);
    } else if (stage->image) {
        r = build_find_image(build, stage->image, stage->platform, &image, err);
        if (r == 0)
            work->image_id = xstrdup(image->id);
    } else {
        r = begin_empty(work, stage->platform, err);
    }
    if (r < 0)
        return r;
    build_say(output, work->index, " ---> %.12s\n",
              stage->has_stage || stage->image ? short_id(work->image_id) : "");
    if (stage->triggers)
        build_say(output, work->index, "# Executing %u build trigger%s\n", stage->triggers,
                  stage->triggers == 1 ? "" : "s");
    return 0;
}

/* --- the cache -------------------------------------------------------------------------------- */

static void add(struct buffer *text, const char *name, const char *value)
{
    if (value)
        buffer_printf(text, "%s %zu %s\n", name, strlen(value), value);
}

static void add_list(struct buffer *text, const char *name, char *const *items)
{
    for (size_t i = 0; items && items[i]; i++)
        add(text, name, items[i]);
}

static void add_copy(struct buffer *text, const struct build_copy *copy)
{
    add(text, "word", copy->word);
    add(text, "to", copy->destination);
    add(text, "chown", copy->chown);
    if (copy->has_chmod)
        buffer_printf(text, "chmod %o\n", copy->chmod);
    buffer_printf(text, "extract %d\n", copy->extract);
    /* the same words, but other owners */
    buffer_printf(text, "from %d\n", copy->has_from_stage || copy->from_image);
}

/* Everything that decides what the step makes; with its length each, since the words of the history
 * alone do not say where one ends and the next begins. */
static void make_key(const struct build_work *work, const struct build_step *step,
                     const char *created_by, char ret[KEY_SIZE])
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;

    add(&text, "parent", work->image_id);
    add(&text, "step", created_by);
    add(&text, "author", step->author);
    if (step->copy)
        add_copy(&text, step->copy);
    if (step->run) {
        add_list(&text, "argument", step->run->arguments);
        add_list(&text, "env", step->run->env);
        add(&text, "network", step->run->network);
    }
    if (step->run && step->run->script)
        add(&text, "script", step->run->script->content);
    oci_image_execution_write(step->config, &text);
    store_build_key(text.data, text.length, ret);
}

/* Of all that a step copies. Owned. */
static int digest_copy(struct build_work *work, const struct build_copy *copy, char **ret,
                       struct error *err)
{
    _cleanup_free_ char *digest = xstrdup(copy->digest);
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    char both[KEY_SIZE];
    int r = 0;

    if (!digest && copy->sources_count + copy->files_count)
        r = build_files_probe(work, copy, &digest, err);
    if (r == 0 && copy->remotes_count) {
        add(&text, "local", digest);
        r = build_files_fetch(work, copy, &text, err);
        store_build_key(text.data, text.length, both);
        free(digest);
        digest = xstrdup(both);
    }
    if (r == 0)
        *ret = steal_ptr(digest);
    return r;
}

/* The words of the history, with the digest of what is copied in them, as docker has it. */
static int name_step(struct build_work *work, const struct build_step *step, char **ret,
                     struct error *err)
{
    const struct build_copy *copy = step->copy;
    _cleanup_free_ char *digest = NULL;

    if (!copy) {
        *ret = xstrdup(step->created_by);
        return 0;
    }
    int r = digest_copy(work, copy, &digest, err);
    if (r < 0)
        return r;
    bool several = copy->sources_count + copy->files_count + copy->remotes_count > 1;
    *ret = xasprintf("%s%s:%s in %s ", step->created_by, several ? "multi" : "file",
                     short_id(digest), copy->shown);
    return 0;
}

/* --cache-from keeps to what those images were made of: nothing, where none of them is here. */
static bool may_use_cache(const struct build_work *work)
{
    const struct api_build_run *how = work->build->how;
    bool here = how->cache_from_count == 0;

    for (size_t i = 0; i < how->cache_from_count && !here; i++) {
        struct store_image *image = NULL;

        here = store_image_find(work->build->engine->store, how->cache_from[i], &image, NULL) == 0;
        store_image_free(image);
    }
    return here && !how->no_cache;
}

static int find_cached(struct build_work *work, const char *key, bool *ret_found, struct error *err)
{
    char *id = NULL;
    int r = 0;

    if (may_use_cache(work))
        r = store_build_find(work->build->engine->store, work->build->number, key, &id, err);
    *ret_found = r == 0 && id;
    if (*ret_found) {
        build_say(&work->build->output, work->index, " ---> Using cache\n");
        free(work->image_id);
        work->image_id = id;
    }
    return r;
}

/* --- a step ----------------------------------------------------------------------------------- */

static int carry_out(struct build_work *work, const struct build_step *step,
                     struct build_layer *layer, struct error *err)
{
    if (step->run)
        return build_run(work, step, layer, err);
    return step->copy || step->folder ? build_files(work, step, layer, err) : 0;
}

static int make_step(struct build_work *work, const struct build_step *step, const char *created_by,
                     const char *key, struct error *err)
{
    struct build_layer layer = {0};
    char *id = NULL;
    int r = carry_out(work, step, &layer, err);

    if (r == 0) {
        const struct store_step made = {
            .build = work->build->number,
            .parent = work->image_id,
            .key = key,
            .config = step->config,
            .author = step->author,
            .created_by = created_by,
            .layer = layer.result ? layer.result->layer : NULL,
        };
        r = store_build_step(work->build->engine->store, layer.staging, &made, &id, err);
    }
    build_layer_finish(&layer);
    build_run_remove(work, r < 0);
    if (r < 0)
        return r;
    free(work->image_id);
    work->image_id = id;
    return 0;
}

static int do_step(struct build_work *work, const struct build_step *step, struct error *err)
{
    struct build *build = work->build;
    _cleanup_free_ char *created_by = NULL;
    char key[KEY_SIZE];
    bool found = false;

    if (build_cancelled(build))
        return error_set(err, -ECANCELED, "cancelled");
    if (step->number)
        build_say(&build->output, work->index, "Step %u/%u : %s\n", step->number,
                  build->plan->total, step->text);
    int r = name_step(work, step, &created_by, err);
    if (r == 0) {
        make_key(work, step, created_by, key);
        r = find_cached(work, key, &found, err);
    }
    if (r == 0 && !found)
        r = make_step(work, step, created_by, key, err);
    build_fetched_finish(&work->fetched);
    if (r == 0)
        build_say(&build->output, work->index, " ---> %.12s\n", short_id(work->image_id));
    return r;
}

int build_stage(struct build_work *work, struct error *err)
{
    const struct build_stage *stage = work->build->plan->stages[work->index];
    int r = begin_stage(work, stage, err);

    for (size_t i = 0; r == 0 && i < stage->steps_count; i++)
        r = do_step(work, stage->steps[i], err);
    return r;
}
