/* Pull, push, search and login as transfers. */
#include <errno.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <store/pull.h>

#include "endpoints.h"
#include "platform.h"
#include "transfer.h"

enum { SEARCH_LIMIT = 25, PARALLEL = 4 };

static uint32_t parallel_of(const struct engine *engine)
{
    const struct registries_settings *settings = engine->registries;

    return settings && settings->has_parallel ? settings->parallel : PARALLEL;
}

static int parse_name(struct transfer *transfer, const char *name, bool all_tags,
                      const struct api_credentials *credentials, struct error *err)
{
    struct store_reference *reference = &transfer->reference;
    int r = store_reference_parse(name, reference, err);

    if (r < 0)
        return r;
    if (all_tags && (reference->tag || reference->digest))
        return error_set(err, -EINVAL, "tag can't be used with --all-tags/-a");
    transfer->all_tags = all_tags;
    if (!all_tags)
        store_reference_default_tag(reference);
    transfer->parallel = parallel_of(transfer->engine);
    transfer->access = endpoints_of(transfer->engine->registries, reference->domain,
                                    ENDPOINTS_IMAGES, credentials);
    return 0;
}

static struct transfer *start_or_refuse(struct transfer *transfer, int r, struct error *err)
{
    if (r >= 0)
        return transfer_start(transfer);
    engine_settle(err, r);
    transfer_refuse(transfer, err);
    return NULL;
}

/* ---- pull ---- */

static int begin_pull(struct transfer *transfer, struct error *err)
{
    const struct store_reference *reference = &transfer->reference;
    struct image_worker_pull *pull = transfer->request->pull = xnew(struct image_worker_pull);

    pull->registry = steal_ptr(transfer->access);
    pull->repository = xstrdup(reference->path);
    pull->reference = xstrdup(reference->digest ? reference->digest : reference->tag);
    pull->all_tags = pull->has_all_tags = transfer->all_tags;
    pull->platform = steal_ptr(transfer->platform);
    pull->parallel = transfer->parallel;
    pull->has_parallel = true;
    int r = store_staging_create(transfer->engine->store, &transfer->staging, err);
    return r < 0 ? r : store_pull_begin(transfer->staging, pull, err);
}

/* The name that was asked for: docker.io/library/shop:latest, or with a digest. */
static char *full_name(const struct store_reference *reference,
                       const struct image_worker_image *image)
{
    if (image->tag)
        return xasprintf("%s/%s:%s", reference->domain, reference->path, image->tag);
    return xasprintf("%s/%s@%s", reference->domain, reference->path, image->digest);
}

static int check_pulled(const struct image_worker_result *result, struct error *err)
{
    if (result->images_count == 0)
        return error_set(err, -EPROTO, "the image worker has no image");
    for (size_t i = 0; i < result->images_count; i++)
        if (text_empty(result->images[i]->digest))
            return error_set(err, -EPROTO, "the image worker has an image without a digest");
    return 0;
}

static int note_pulled(struct transfer *transfer, const struct image_worker_image *image,
                       bool changed, struct api_image_pulled *pulled, struct error *err)
{
    const struct store_reference *reference = &transfer->reference;
    struct api_pulled_image *entry = xnew(struct api_pulled_image);
    _cleanup_free_ char *digest =
        xasprintf("%s/%s@%s", reference->domain, reference->path, image->digest);

    entry->id = xstrdup(image->id);
    entry->name = full_name(reference, image);
    entry->digest = xstrdup(image->digest);
    entry->changed = changed;
    pulled->images[pulled->images_count++] = entry;
    _cleanup_free_ char *short_name = store_reference_shorten(entry->name);
    transfer_add_news(transfer, "pull", short_name, short_name);
    return store_note_digest(transfer->engine->store, image->id, digest, err);
}

static int import(struct transfer *transfer, const struct image_worker_result *result,
                  struct error *err)
{
    struct store *store = transfer->engine->store;
    struct api_image_pulled *pulled = transfer->document = xnew(struct api_image_pulled);
    _cleanup_free_ bool *changed = xnew_array(bool, result->images_count + 1);
    struct store_loaded *loaded = NULL;
    size_t count = 0;
    int r = check_pulled(result, err);

    for (size_t i = 0; r == 0 && i < result->images_count; i++) {
        struct image_worker_image *image = result->images[i];
        _cleanup_free_ char *name = full_name(&transfer->reference, image);
        changed[i] = !store_name_is(store, name, image->id);
        if (image->tag) {
            strv_append(&image->names, name);
            image->names_count++;
        }
    }
    if (r == 0)
        r = store_staging_import(transfer->staging, result, &loaded, &count, err);
    store_loaded_free(loaded, count);
    pulled->images = xnew_array(struct api_pulled_image *, result->images_count + 1);
    for (size_t i = 0; r == 0 && i < result->images_count; i++)
        r = note_pulled(transfer, result->images[i], changed[i], pulled, err);
    return r;
}

static int finish_pull(struct transfer *transfer, const struct image_worker_result *result,
                       struct error *err)
{
    int r = result ? import(transfer, result, err) : 0;

    store_pull_end(transfer->engine->store, transfer->request->pull);
    return r;
}

static const struct transfer_kind pull_kind = {
    .type = &api_image_pulled_type,
    .begin = begin_pull,
    .finish = finish_pull,
};

/* Who may have it is the registry's to say, so the credentials belong to it. */
static char *key_of(const struct transfer *transfer, const struct api_image_pull *params)
{
    const struct store_reference *name = &transfer->reference;
    struct api_image_pull same = *params;
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    _cleanup_free_ char *image =
        xasprintf("%s/%s:%s@%s", name->domain, name->path, name->tag ? name->tag : "",
                  name->digest ? name->digest : "");

    same.image = image;
    api_image_pull_write(&same, &text);
    return buffer_steal(&text);
}

struct transfer *engine_image_pull(struct engine *engine, const struct api_image_pull *params,
                                   const struct engine_transfer_callbacks *callbacks)
{
    struct transfer *transfer = transfer_new(engine, &pull_kind, callbacks);
    _cleanup_error_ struct error err = ERROR_INIT;
    int r = parse_name(transfer, params->image, params->all_tags, params->credentials, &err);

    if (r >= 0)
        r = platform_parse(params->platform, &transfer->platform, &err);
    if (r >= 0) {
        transfer->key = key_of(transfer, params);
        if (transfer_join(transfer))
            return transfer;
    }
    return start_or_refuse(transfer, r, &err);
}

/* ---- push ---- */

static int begin_push(struct transfer *transfer, struct error *err)
{
    struct store *store = transfer->engine->store;
    struct store_reference name = transfer->reference;
    struct image_worker_push *push;
    int r = 0;

    if (!transfer->tags && transfer->all_tags)
        r = store_tags(store, &transfer->reference, &transfer->tags, err);
    else if (!transfer->tags)
        strv_append(&transfer->tags, transfer->reference.tag);
    if (r >= 0 && !transfer->tags)
        r = error_set(err, -ENOENT, "An image does not exist locally with the tag: %s/%s",
                      name.domain, name.path);
    if (r >= 0)
        r = store_staging_create(store, &transfer->staging, err);
    if (r < 0)
        return r;
    push = transfer->request->push = xnew(struct image_worker_push);
    name.tag = transfer->tags[transfer->tag];
    r = store_push_prepare(store, &name, push, err);
    if (r < 0)
        return r;
    push->registry = steal_ptr(transfer->access);
    push->parallel = transfer->parallel;
    push->has_parallel = true;
    transfer->content_fd = store_content_fd(store);
    return 0;
}

static int finish_push(struct transfer *transfer, const struct image_worker_result *result,
                       struct error *err)
{
    const struct store_reference *reference = &transfer->reference;
    struct api_image_pushed *pushed = transfer->document;
    int r = 0;

    if (result && result->pushed) {
        struct api_pushed_image *entry = xnew(struct api_pushed_image);
        const char *tag = transfer->tags[transfer->tag];
        _cleanup_free_ char *name = xasprintf("%s/%s:%s", reference->domain, reference->path, tag);
        _cleanup_free_ char *digest =
            xasprintf("%s/%s@%s", reference->domain, reference->path, result->pushed->digest);
        entry->tag = xstrdup(tag);
        entry->digest = xstrdup(result->pushed->digest);
        entry->size = result->pushed->size;
        if (!pushed)
            pushed = transfer->document = xnew(struct api_image_pushed);
        pushed->images = xrealloc(pushed->images, pushed->images_count + 1, sizeof(entry));
        pushed->images[pushed->images_count++] = entry;
        _cleanup_free_ char *short_name = store_reference_shorten(name);
        transfer_add_news(transfer, "push", short_name, short_name);
        r = store_note_digest(transfer->engine->store, transfer->request->push->image->id, digest,
                              err);
    } else if (result) {
        r = error_set(err, -EPROTO, "the image worker has pushed nothing");
    }
    transfer->access = steal_ptr(transfer->request->push->registry); /* for the next round */
    store_push_finish(transfer->engine->store, transfer->request->push);
    return r;
}

static bool next_push(struct transfer *transfer)
{
    return transfer->tags[++transfer->tag] != NULL;
}

static const struct transfer_kind push_kind = {
    .type = &api_image_pushed_type,
    .begin = begin_push,
    .finish = finish_push,
    .next = next_push,
};

struct transfer *engine_image_push(struct engine *engine, const struct api_image_push *params,
                                   const struct engine_transfer_callbacks *callbacks)
{
    struct transfer *transfer = transfer_new(engine, &push_kind, callbacks);
    _cleanup_error_ struct error err = ERROR_INIT;
    int r = parse_name(transfer, params->image, params->all_tags, params->credentials, &err);

    if (r >= 0 && transfer->reference.digest)
        r = error_set(&err, -EINVAL, "cannot push a digest reference");
    return start_or_refuse(transfer, r, &err);
}

/* ---- search ---- */

static int begin_search(struct transfer *transfer, struct error *err)
{
    struct image_worker_search *search = transfer->request->search =
        xnew(struct image_worker_search);

    search->registry = steal_ptr(transfer->access);
    search->term = xstrdup(transfer->term);
    search->limit = transfer->limit;
    return 0;
}

static int finish_search(struct transfer *transfer, const struct image_worker_result *result,
                         struct error *err)
{
    if (!result)
        return 0;
    struct api_image_search_results *results = transfer->document =
        xnew(struct api_image_search_results);
    results->results = xnew_array(struct api_image_search_result *, result->found_count + 1);
    bool docker = text_equal(transfer->registry, ENDPOINTS_DOCKER);
    for (size_t i = 0; i < result->found_count; i++) {
        const struct image_worker_found *found = result->found[i];
        struct api_image_search_result *entry = xnew(struct api_image_search_result);
        entry->name =
            docker ? xstrdup(found->name) : xasprintf("%s/%s", transfer->registry, found->name);
        entry->description = xstrdup(found->description ? found->description : "");
        entry->stars = found->stars;
        entry->official = found->official;
        entry->automated = found->automated;
        results->results[results->results_count++] = entry;
    }
    return 0;
}

static const struct transfer_kind search_kind = {
    .type = &api_image_search_results_type,
    .begin = begin_search,
    .finish = finish_search,
};

/* REGISTRY/WORD, where the first part is one by the rules of references. */
static void split_term(const char *text, char **ret_registry, char **ret_word)
{
    const char *slash = strchr(text, '/');
    _cleanup_free_ char *first = slash ? xstrndup(text, (size_t)(slash - text)) : xstrdup("");

    if (slash && (strpbrk(first, ".:") || text_equal(first, "localhost"))) {
        *ret_registry = xstrdup(text_equal(first, "index.docker.io") ? ENDPOINTS_DOCKER : first);
        *ret_word = xstrdup(slash + 1);
    } else {
        *ret_registry = xstrdup(ENDPOINTS_DOCKER);
        *ret_word = xstrdup(text);
    }
}

/* A registry's name becomes part of an address and of a path. */
static int check_registry(const char *name, struct error *err)
{
    _cleanup_store_reference_ struct store_reference reference = {0};
    _cleanup_free_ char *image = xasprintf("%s/x", name);

    if (store_reference_parse(image, &reference, NULL) == 0 &&
        (text_equal(reference.domain, name) || text_equal(name, ENDPOINTS_DOCKER)))
        return 0;
    return error_set(err, -EINVAL, "'%.200s' is no registry: HOST[:PORT] is one", name);
}

struct transfer *engine_image_search(struct engine *engine, const struct api_image_search *params,
                                     const struct engine_transfer_callbacks *callbacks)
{
    struct transfer *transfer = transfer_new(engine, &search_kind, callbacks);
    _cleanup_error_ struct error err = ERROR_INIT;

    split_term(params->term, &transfer->registry, &transfer->term);
    transfer->limit = params->has_limit ? params->limit : SEARCH_LIMIT;
    int r = check_registry(transfer->registry, &err);
    if (r >= 0)
        transfer->access = endpoints_of(engine->registries, transfer->registry, ENDPOINTS_SEARCH,
                                        params->credentials);
    return start_or_refuse(transfer, r, &err);
}

/* ---- what a registry has ---- */

static int begin_describe(struct transfer *transfer, struct error *err)
{
    const struct store_reference *reference = &transfer->reference;
    struct image_worker_describe *describe = transfer->request->describe =
        xnew(struct image_worker_describe);

    describe->registry = steal_ptr(transfer->access);
    describe->repository = xstrdup(reference->path);
    describe->reference = xstrdup(reference->digest ? reference->digest : reference->tag);
    return 0;
}

static int finish_describe(struct transfer *transfer, const struct image_worker_result *result,
                           struct error *err)
{
    const struct image_worker_described *described = result ? result->described : NULL;

    if (!result)
        return 0;
    if (!described)
        return error_set(err, -EPROTO, "the image worker has described nothing");
    struct api_image_distributed *answer = transfer->document = xnew(struct api_image_distributed);
    answer->media_type = xstrdup(described->media_type);
    answer->digest = xstrdup(described->digest);
    answer->size = described->size;
    answer->platforms =
        xnew_array(struct api_distributed_platform *, described->platforms_count + 1);
    for (size_t i = 0; i < described->platforms_count; i++) {
        const struct oci_image_platform *platform = described->platforms[i];
        struct api_distributed_platform *entry = xnew(struct api_distributed_platform);
        entry->os = xstrdup(platform->os);
        entry->architecture = xstrdup(platform->architecture);
        entry->variant = xstrdup(platform->variant);
        entry->os_version = xstrdup(platform->os_version);
        for (size_t j = 0; j < platform->os_features_count; j++)
            strv_append(&entry->os_features, platform->os_features[j]);
        entry->os_features_count = platform->os_features_count;
        answer->platforms[answer->platforms_count++] = entry;
    }
    return 0;
}

static const struct transfer_kind describe_kind = {
    .type = &api_image_distributed_type,
    .begin = begin_describe,
    .finish = finish_describe,
};

struct transfer *engine_image_distribution(struct engine *engine,
                                           const struct api_image_distribution *params,
                                           const struct engine_transfer_callbacks *callbacks)
{
    struct transfer *transfer = transfer_new(engine, &describe_kind, callbacks);
    _cleanup_error_ struct error err = ERROR_INIT;
    int r = parse_name(transfer, params->image, false, params->credentials, &err);

    return start_or_refuse(transfer, r, &err);
}

/* ---- login ---- */

static int begin_login(struct transfer *transfer, struct error *err)
{
    struct image_worker_login *login = transfer->request->login = xnew(struct image_worker_login);

    login->registry = steal_ptr(transfer->access);
    return 0;
}

static int finish_login(struct transfer *transfer, const struct image_worker_result *result,
                        struct error *err)
{
    if (!result)
        return 0;
    struct api_registry_logged_in *answer = transfer->document =
        xnew(struct api_registry_logged_in);
    if (result->logged_in)
        answer->identity_token = xstrdup(result->logged_in->identity_token);
    return 0;
}

static const struct transfer_kind login_kind = {
    .type = &api_registry_logged_in_type,
    .begin = begin_login,
    .finish = finish_login,
};

/* docker's clients say "https://index.docker.io/v1/", and sometimes put https:// before others. */
static char *registry_of(const char *given)
{
    const char *start = given && strstr(given, "://") ? strstr(given, "://") + 3 : given;
    char *name =
        text_empty(start) ? xstrdup(ENDPOINTS_DOCKER) : xstrndup(start, strcspn(start, "/"));

    if (text_equal(name, "index.docker.io") || text_equal(name, "registry-1.docker.io")) {
        free(name);
        name = xstrdup(ENDPOINTS_DOCKER);
    }
    return name;
}

struct transfer *engine_registry_login(struct engine *engine,
                                       const struct api_registry_login *params,
                                       const struct engine_transfer_callbacks *callbacks)
{
    struct transfer *transfer = transfer_new(engine, &login_kind, callbacks);
    _cleanup_error_ struct error err = ERROR_INIT;

    transfer->registry = registry_of(params->registry);
    int r = check_registry(transfer->registry, &err);
    if (r >= 0)
        transfer->access = endpoints_of(engine->registries, transfer->registry, ENDPOINTS_IMAGES,
                                        params->credentials);
    return start_or_refuse(transfer, r, &err);
}
