/*
 * Other limits, or another restart policy, for a container: HostConfig's fields, of which docker
 * sends those that may change.
 */
#include <base/alloc.h>
#include <schema/management.h>

#include "../fields.h"
#include "create.h"
#include "handlers.h"

static void on_updated(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    const struct api_container_updated *updated = outcome->result;
    struct buffer out = BUFFER_INIT;
    struct json_writer writer;

    if (outcome->code != 0) {
        call_answer_error(exchange, outcome);
        return;
    }
    json_writer_init(&writer, &out, JSON_COMPACT);
    json_writer_object_begin(&writer);
    json_writer_key(&writer, "Warnings");
    json_writer_array_begin(&writer);
    for (size_t i = 0; i < updated->warnings_count; i++)
        json_writer_string(&writer, updated->warnings[i]);
    json_writer_array_end(&writer);
    json_writer_object_end(&writer);
    answer_json(exchange, 200, &out);
}

void docker_container_update(struct exchange *exchange)
{
    struct api_container_update how = {.container = exchange->words[0]};
    _cleanup_error_ struct error err = ERROR_INIT;
    struct docker_host_config *config;
    void *document;

    if (!exchange_document(exchange, &docker_host_config_type, &document))
        return;
    config = document;
    int r = docker_take_resources(config, &how.resources, &err);
    if (r == 0)
        how.restart_policy = docker_restart_policy_of(config->restart_policy);
    docker_host_config_free(config);
    if (r < 0)
        answer_error(exchange, 400, &err);
    else
        call(exchange, "container.update", &how, on_updated, NULL);
    api_resources_free(how.resources);
    api_restart_policy_free(how.restart_policy);
}
