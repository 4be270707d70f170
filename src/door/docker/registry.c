/*
 * What goes to registries and comes from them: pull, push, search, auth.
 */
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/docker.h>
#include <schema/management.h>
#include <schema/rpc.h>

#include "../fields.h"
#include "base64.h"
#include "filters.h"
#include "handlers.h"

/* ---- X-Registry-Auth ---- */

struct api_credentials *docker_credentials_take(struct docker_auth_config *auth)
{
    if (text_empty(auth->username) && text_empty(auth->identitytoken) &&
        text_empty(auth->registrytoken))
        return NULL;
    struct api_credentials *credentials = xnew(struct api_credentials);
    credentials->username = steal_ptr(auth->username);
    credentials->password = steal_ptr(auth->password);
    credentials->identity_token =
        text_empty(auth->identitytoken) ? NULL : steal_ptr(auth->identitytoken);
    credentials->registry_token =
        text_empty(auth->registrytoken) ? NULL : steal_ptr(auth->registrytoken);
    return credentials;
}

/* As dockerd does, one that makes no sense counts as none. Owned by the caller. */
static struct api_credentials *credentials_of(const struct exchange *exchange)
{
    const char *header = head_field(&exchange->head, "X-Registry-Auth");
    struct docker_auth_config *auth;
    size_t length;

    if (text_empty(header))
        return NULL;
    _cleanup_free_ char *text = base64_decode(header, &length);
    if (!text || docker_auth_config_parse(text, length, NULL, &auth, NULL) < 0)
        return NULL;
    struct api_credentials *credentials = docker_credentials_take(auth);
    docker_auth_config_free(auth);
    return credentials;
}

/* ---- progress ---- */

static void write_status(struct exchange *exchange, const char *id, const char *text)
{
    _cleanup_buffer_ struct buffer line = BUFFER_INIT;
    struct json_writer writer;

    json_writer_init(&writer, &line, JSON_COMPACT);
    json_writer_object_begin(&writer);
    field_text(&writer, "status", text);
    if (id)
        field_text(&writer, "id", id);
    json_writer_object_end(&writer);
    answer_line(exchange, &line);
}

/* "1.049MB", as docker's clients show sizes. */
static void append_size(struct buffer *text, uint64_t bytes, int width)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
    double size = (double)bytes;
    char number[40];
    size_t unit = 0;

    for (; size >= 1000 && unit + 1 < ARRAY_SIZE(units); unit++)
        size /= 1000;
    snprintf(number, sizeof(number), "%.4g%s", size, units[unit]);
    buffer_printf(text, "%*s", width, number);
}

/* The bar for clients that draw none themselves. */
static void write_bar(struct json_writer *writer, const struct rpc_progress *progress)
{
    enum { WIDTH = 50 };
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    bool known = progress->has_total && progress->total && progress->done <= progress->total;

    if (known) {
        int filled = (int)((double)progress->done / (double)progress->total * WIDTH);
        buffer_append_char(&text, '[');
        for (int i = 0; i < filled; i++)
            buffer_append_char(&text, '=');
        buffer_append_char(&text, '>');
        buffer_printf(&text, "%*s] ", WIDTH - filled, "");
    }
    append_size(&text, progress->done, 8);
    if (known) {
        buffer_append_char(&text, '/');
        append_size(&text, progress->total, 0);
    }
    field_text(writer, "progress", buffer_text(&text));
}

/* What has ended has no bar any more. */
static bool is_under_way(const char *step)
{
    static const char *const steps[] = {"Downloading", "Pushing", "Preparing", "Retrying",
                                        "Loading layer"};

    for (size_t i = 0; i < ARRAY_SIZE(steps); i++)
        if (text_equal(step, steps[i]))
            return true;
    return false;
}

static void write_detail(struct json_writer *writer, const char *step,
                         const struct rpc_progress *progress)
{
    bool numbers = progress->done && is_under_way(step);

    field_object_begin(writer, "progressDetail");
    if (numbers)
        field_unsigned(writer, "current", progress->done);
    if (numbers && progress->has_total)
        field_unsigned(writer, "total", progress->total);
    json_writer_object_end(writer);
    if (numbers)
        write_bar(writer, progress);
}

/* The call tells of each layer ("0123456789ab: Downloading"), of a tag, or of all of it. */
void docker_tell_progress(struct exchange *exchange, const struct rpc_progress *progress)
{
    _cleanup_buffer_ struct buffer line = BUFFER_INIT;
    struct json_writer writer;
    const char *text = progress->text ? progress->text : "Working", *colon = strstr(text, ": ");
    bool of_item = colon && !memchr(text, ' ', (size_t)(colon - text));
    bool is_tag = of_item && text_starts_with(colon + 2, "Pulling from ");
    const char *step = of_item ? colon + 2 : text;

    bool whole = progress->has_total && progress->done == progress->total;
    if (is_under_way(step) && !whole && connection_is_behind(exchange->connection))
        return; /* who does not read is told of a later state */
    json_writer_init(&writer, &line, JSON_COMPACT);
    json_writer_object_begin(&writer);
    field_text(&writer, "status", step);
    if (!is_tag)
        write_detail(&writer, step, progress);
    if (of_item) {
        _cleanup_free_ char *id = xstrndup(text, (size_t)(colon - text));
        field_text(&writer, "id", id);
    }
    json_writer_object_end(&writer);
    answer_line(exchange, &line);
}

/* ---- pull ---- */

/* "docker.io/library/shop:1" as people call it: "shop:1". */
static const char *familiar(const char *name)
{
    if (text_starts_with(name, "docker.io/library/"))
        return name + strlen("docker.io/library/");
    return text_starts_with(name, "docker.io/") ? name + strlen("docker.io/") : name;
}

static void on_pulled(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    const struct api_image_pulled *pulled = outcome->result;

    for (size_t i = 0; i < pulled->images_count; i++) {
        const struct api_pulled_image *image = pulled->images[i];
        _cleanup_free_ char *digest = xasprintf("Digest: %s", image->digest);
        _cleanup_free_ char *what = xasprintf(
            "Status: %s for %s", image->changed ? "Downloaded newer image" : "Image is up to date",
            familiar(image->name));
        write_status(exchange, NULL, digest);
        write_status(exchange, NULL, what);
    }
    answer_end(exchange);
}

/* fromImage=NAME[:TAG|@DIGEST] with tag=TAG or tag=DIGEST. */
static char *name_of(const char *repository, const char *tag)
{
    if (text_empty(tag))
        return xstrdup(repository);
    return xasprintf("%s%c%s", repository, strchr(tag, ':') ? '@' : ':', tag);
}

static bool has_tag(const char *name)
{
    const char *slash = strrchr(name, '/');

    return strpbrk(slash ? slash : name, ":@") != NULL;
}

static void pull(struct exchange *exchange, const char *repository)
{
    const char *tag = target_text(&exchange->target, "tag");
    const char *platform = target_text(&exchange->target, "platform");
    _cleanup_free_ char *name = name_of(repository, tag);
    const struct api_image_pull how = {
        .image = name,
        .all_tags = !has_tag(name),
        .has_all_tags = true,
        .platform = text_empty(platform) ? NULL : (char *)(uintptr_t)platform,
        .credentials = credentials_of(exchange),
    };

    call(exchange, "image.pull", &how, on_pulled,
         &(struct call_options){.progress = docker_tell_progress});
    api_credentials_free(how.credentials);
}

void docker_image_create(struct exchange *exchange)
{
    const char *repository = target_text(&exchange->target, "fromImage");

    if (text_empty(repository)) {
        docker_image_import(exchange);
        return;
    }
    exchange_drop_body(exchange);
    pull(exchange, repository);
}

/* ---- push ---- */

static void on_pushed(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    const struct api_image_pushed *pushed = outcome->result;

    for (size_t i = 0; i < pushed->images_count; i++) {
        const struct api_pushed_image *image = pushed->images[i];
        _cleanup_free_ char *text = xasprintf("%s: digest: %s size: %ju", image->tag, image->digest,
                                              (uintmax_t)image->size);
        _cleanup_buffer_ struct buffer line = BUFFER_INIT;
        struct json_writer writer;
        write_status(exchange, NULL, text);
        json_writer_init(&writer, &line, JSON_COMPACT);
        json_writer_object_begin(&writer);
        field_object_begin(&writer, "progressDetail");
        json_writer_object_end(&writer);
        field_object_begin(&writer, "aux");
        field_text(&writer, "Tag", image->tag);
        field_text(&writer, "Digest", image->digest);
        field_unsigned(&writer, "Size", image->size);
        json_writer_object_end(&writer);
        json_writer_object_end(&writer);
        answer_line(exchange, &line);
    }
    answer_end(exchange);
}

/* The repository's name in full. */
static void write_destination(struct exchange *exchange)
{
    const char *name = exchange->words[0], *slash = strchr(name, '/');
    size_t first = slash ? (size_t)(slash - name) : 0;
    bool has_host = slash && (memchr(name, '.', first) || memchr(name, ':', first) ||
                              text_starts_with(name, "localhost/"));
    const char *host = has_host ? "" : slash ? "docker.io/" : "docker.io/library/";
    _cleanup_free_ char *text = xasprintf("The push refers to repository [%s%s]", host, name);

    write_status(exchange, NULL, text);
}

void docker_image_push(struct exchange *exchange)
{
    const char *tag = target_text(&exchange->target, "tag");
    _cleanup_free_ char *name = name_of(exchange->words[0], tag);
    const struct api_image_push how = {.image = name,
                                       .all_tags = text_empty(tag),
                                       .has_all_tags = true,
                                       .credentials = credentials_of(exchange)};

    answer_begin(exchange, 200, "application/json"); /* failures are told in the stream */
    write_destination(exchange);
    call(exchange, "image.push", &how, on_pushed,
         &(struct call_options){.progress = docker_tell_progress});
    api_credentials_free(how.credentials);
}

/* ---- search ---- */

/* The command line leaves these to the daemon. */
struct search {
    bool official, has_official, automated, has_automated;
    int64_t stars;
};

static bool search_flag(struct exchange *exchange, const struct filters *filters, const char *key,
                        bool *ret, bool *ret_has)
{
    char **values = filters_get(filters, key);

    if (!values)
        return true;
    *ret = text_equal(values[0], "true") || text_equal(values[0], "1");
    *ret_has = true;
    if (*ret || text_equal(values[0], "false") || text_equal(values[0], "0"))
        return true;
    answer_fail(exchange, 400, "Invalid filter '%s=[%s]'", key, values[0]);
    return false;
}

/* false: it was answered that they make no sense. */
static bool search_filters(struct exchange *exchange, struct search *search)
{
    static const char *const known[] = {"is-official", "is-automated", "stars", NULL};
    _cleanup_filters_ struct filters filters = {.count = 0};

    if (!filters_of(exchange, known, &filters) ||
        !search_flag(exchange, &filters, "is-official", &search->official, &search->has_official) ||
        !search_flag(exchange, &filters, "is-automated", &search->automated,
                     &search->has_automated))
        return false;
    char **stars = filters_get(&filters, "stars");
    for (size_t i = 0; stars && stars[i]; i++) {
        int64_t number;
        if (text_to_i64(stars[i], 0, INT32_MAX, &number) < 0) {
            answer_fail(exchange, 400, "Invalid filter 'stars=[%s]'", stars[i]);
            return false;
        }
        search->stars = number > search->stars ? number : search->stars;
    }
    return true;
}

static bool is_wanted(const struct search *search, const struct api_image_search_result *result)
{
    return (int64_t)result->stars >= search->stars &&
           (!search->has_official || search->official == result->official) &&
           (!search->has_automated || search->automated == result->automated);
}

static void on_found(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    const struct api_image_search_results *found = outcome->result;
    struct buffer out = BUFFER_INIT;
    struct json_writer writer;

    json_writer_init(&writer, &out, JSON_COMPACT);
    json_writer_array_begin(&writer);
    for (size_t i = 0; i < found->results_count; i++) {
        const struct api_image_search_result *result = found->results[i];
        if (!is_wanted(exchange->state, result))
            continue;
        json_writer_object_begin(&writer);
        field_integer(&writer, "star_count", (int64_t)result->stars);
        field_boolean(&writer, "is_official", result->official);
        field_text(&writer, "name", result->name);
        field_boolean(&writer, "is_automated", result->automated);
        field_text(&writer, "description", result->description);
        json_writer_object_end(&writer);
    }
    json_writer_array_end(&writer);
    answer_json(exchange, 200, &out);
}

void docker_image_search(struct exchange *exchange)
{
    const char *term = target_text(&exchange->target, "term");
    int64_t limit = target_number(&exchange->target, "limit", 0);
    struct search *search = xnew(struct search);

    exchange_set_state(exchange, search, free);
    if (limit < 0 || limit > 100) {
        answer_fail(exchange, 400, "Limit %jd is outside the range of [1, 100]", (intmax_t)limit);
        return;
    }
    if (!search_filters(exchange, search))
        return;
    struct api_image_search how = {.term = (char *)(uintptr_t)term,
                                   .credentials = credentials_of(exchange)};

    how.has_limit = limit > 0;
    how.limit = how.has_limit ? (uint32_t)limit : 0;
    if (text_empty(term))
        answer_fail(exchange, 400, "a term to search for is needed");
    else
        call(exchange, "image.search", &how, on_found, NULL);
    api_credentials_free(how.credentials);
}

/* ---- what a registry has ---- */

static void on_distribution(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    const struct api_image_distributed *found = outcome->result;
    struct buffer out = BUFFER_INIT;
    struct json_writer writer;

    if (outcome->code < 0) {
        unsigned status = call_status(outcome);
        answer_error(exchange, status == 403 ? 401 : status, outcome->error);
        return;
    }
    json_writer_init(&writer, &out, JSON_COMPACT);
    json_writer_object_begin(&writer);
    field_object_begin(&writer, "Descriptor");
    field_text(&writer, "mediaType", found->media_type);
    field_text(&writer, "digest", found->digest);
    field_unsigned(&writer, "size", found->size);
    json_writer_object_end(&writer);
    json_writer_key(&writer, "Platforms");
    json_writer_array_begin(&writer);
    for (size_t i = 0; i < found->platforms_count; i++) {
        const struct api_distributed_platform *platform = found->platforms[i];
        json_writer_object_begin(&writer);
        field_text(&writer, "architecture", platform->architecture);
        field_text(&writer, "os", platform->os);
        if (!text_empty(platform->os_version))
            field_text(&writer, "os.version", platform->os_version);
        if (platform->os_features_count)
            field_list(&writer, "os.features", platform->os_features);
        if (!text_empty(platform->variant))
            field_text(&writer, "variant", platform->variant);
        json_writer_object_end(&writer);
    }
    json_writer_array_end(&writer);
    json_writer_object_end(&writer);
    answer_json(exchange, 200, &out);
}

void docker_distribution(struct exchange *exchange)
{
    const struct api_image_distribution how = {.image = exchange->words[0],
                                               .credentials = credentials_of(exchange)};

    call(exchange, "image.distribution", &how, on_distribution,
         &(struct call_options){.errors = true});
    api_credentials_free(how.credentials);
}

/* ---- auth ---- */

static void on_login(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    const struct api_registry_logged_in *login = outcome->result;
    struct buffer out = BUFFER_INIT;
    struct json_writer writer;

    json_writer_init(&writer, &out, JSON_COMPACT);
    json_writer_object_begin(&writer);
    field_text(&writer, "IdentityToken", login->identity_token);
    field_text(&writer, "Status", "Login Succeeded");
    json_writer_object_end(&writer);
    answer_json(exchange, 200, &out);
}

static void on_login_outcome(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    if (outcome->code == 0)
        on_login(exchange, outcome);
    else if (call_status(outcome) == 403)
        answer_error(exchange, 401, outcome->error);
    else
        call_answer_error(exchange, outcome);
}

void docker_auth(struct exchange *exchange)
{
    _cleanup_docker_auth_config_ struct docker_auth_config *auth = NULL;
    void *document;

    if (!exchange_document(exchange, &docker_auth_config_type, &document))
        return;
    auth = document;
    _cleanup_api_credentials_ struct api_credentials *credentials = docker_credentials_take(auth);
    if (!credentials) {
        answer_fail(exchange, 400, "a user name and a password, or a token, are needed");
        return;
    }
    const struct api_registry_login how = {.credentials = credentials,
                                           .registry = auth->serveraddress};
    call(exchange, "registry.login", &how, on_login_outcome,
         &(struct call_options){.errors = true});
}
