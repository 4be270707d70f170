#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/text.h>

#include "ports.h"

static const char *address_of(const struct api_port *port)
{
    return text_empty(port->host_address) ? "0.0.0.0" : port->host_address;
}

static const char *protocol_of(const struct api_port *port)
{
    return text_empty(port->protocol) ? "tcp" : port->protocol;
}

static bool is_published(const struct api_port *port)
{
    return port->has_host_port && port->host_port;
}

static int by_container_port(const void *a, const void *b)
{
    const struct api_port *const *first = a, *const *second = b;
    int r = (*first)->container_port - (*second)->container_port;

    if (!r)
        r = (*first)->host_port - (*second)->host_port;
    return r ? r : strcmp(protocol_of(*first), protocol_of(*second));
}

/* docker joins ports only where inside and outside have the same number. */
static bool continues(const struct api_port *last, const struct api_port *next)
{
    return next->container_port == last->container_port + 1 &&
           is_published(last) == is_published(next) &&
           (!is_published(last) ||
            (last->host_port == last->container_port && next->host_port == next->container_port)) &&
           strcmp(address_of(last), address_of(next)) == 0 &&
           strcmp(protocol_of(last), protocol_of(next)) == 0;
}

static void write_number(uint16_t first, uint16_t last, struct buffer *out)
{
    buffer_printf(out, "%u", first);
    if (last != first)
        buffer_printf(out, "-%u", last);
}

static void write_run(const struct api_port *first, const struct api_port *last, struct buffer *out)
{
    if (out->length)
        buffer_append_text(out, ", ");
    if (is_published(first)) {
        buffer_printf(out, "%s:", address_of(first));
        write_number(first->host_port, last->host_port, out);
        buffer_append_text(out, "->");
    }
    write_number(first->container_port, last->container_port, out);
    buffer_printf(out, "/%s", protocol_of(first));
}

char *ports_text(struct api_port *const *ports, size_t count)
{
    struct buffer out = BUFFER_INIT;
    _cleanup_free_ struct api_port **sorted = xmemdup(ports, count * sizeof(*ports));

    if (count)
        qsort(sorted, count, sizeof(*sorted), by_container_port);
    for (size_t i = 0, end; i < count; i = end) {
        for (end = i + 1; end < count && continues(sorted[end - 1], sorted[end]); end++)
            ;
        write_run(sorted[i], sorted[end - 1], &out);
    }
    return buffer_steal(&out);
}
