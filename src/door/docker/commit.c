/*
 * POST /commit.
 */
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/docker.h>
#include <schema/management.h>

#include "../fields.h"
#include "handlers.h"

/* Instructions, a line each. */
static char **changes_of(const struct exchange *exchange)
{
    _cleanup_strv_ char **texts = target_list(&exchange->target, "changes");
    char **changes = NULL;

    for (size_t i = 0; texts && texts[i]; i++) {
        _cleanup_strv_ char **lines = strv_split(texts[i], '\n');
        for (size_t j = 0; lines && lines[j]; j++)
            if (lines[j][0])
                strv_append(&changes, lines[j]);
    }
    return changes;
}

static void on_committed(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    const struct api_image_id *image = outcome->result;
    struct buffer out = BUFFER_INIT;
    struct json_writer writer;

    json_writer_init(&writer, &out, JSON_COMPACT);
    json_writer_object_begin(&writer);
    field_text(&writer, "Id", image->id);
    json_writer_object_end(&writer);
    answer_json(exchange, 201, &out);
}

void docker_commit(struct exchange *exchange)
{
    const struct target *target = &exchange->target;
    const char *container = target_text(target, "container"), *pause = target_text(target, "pause");
    const char *repository = target_text(target, "repo"), *tag = target_text(target, "tag");
    _cleanup_docker_container_config_ struct docker_container_config *config = NULL;
    void *document;
    _cleanup_free_ char *name = text_empty(repository)
                                    ? NULL
                                    : xasprintf("%s%s%s", repository, text_empty(tag) ? "" : ":",
                                                text_empty(tag) ? "" : tag);

    if (text_empty(container)) {
        answer_fail(exchange, 400, "no container is named");
        return;
    }
    if (!exchange_document(exchange, &docker_container_config_type, &document))
        return;
    config = document; /* it is one: the engine takes it as it came */
    _cleanup_strv_ char **changes = changes_of(exchange);
    const struct api_container_commit how = {
        .container = (char *)(uintptr_t)container,
        .name = name,
        .message = (char *)(uintptr_t)target_text(target, "comment"),
        .author = (char *)(uintptr_t)target_text(target, "author"),
        .pause = !pause || target_flag(target, "pause"),
        .has_pause = true,
        .changes = changes,
        .changes_count = strv_length(changes),
        .config = exchange->body.length ? (char *)(uintptr_t)buffer_text(&exchange->body) : NULL,
    };
    call(exchange, "container.commit", &how, on_committed, NULL);
}
