/*
 * What dockerd has for many machines, and plug-ins: clients ask, and go on when they are told, in
 * dockerd's words, that there are none.
 */
#include <base/buffer.h>

#include "handlers.h"

void docker_swarm_leave(struct exchange *exchange)
{
    answer_fail(exchange, 503, "This node is not part of a swarm");
}

void docker_swarm_none(struct exchange *exchange)
{
    answer_fail(exchange, 503,
                "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm "
                "join\" to connect this node to swarm and try again.");
}

void docker_swarm_begin(struct exchange *exchange)
{
    answer_fail(exchange, 501, "This engine runs containers of one machine: it has no swarm");
}

void docker_plugin_list(struct exchange *exchange)
{
    _cleanup_buffer_ struct buffer none = BUFFER_INIT;

    buffer_append_text(&none, "[]");
    answer_json(exchange, 200, &none);
}
