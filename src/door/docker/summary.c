/*
 * A container in docker's list.
 */
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/text.h>
#include <schema/management.h>

#include "../fields.h"
#include "../inspect.h"
#include "handlers.h"

static int64_t seconds_of(const char *time)
{
    int64_t nanoseconds;

    return time && clock_parse(time, &nanoseconds) == 0 ? nanoseconds / CLOCK_SECOND : 0;
}

static void write_port(struct json_writer *writer, const struct api_port *port)
{
    json_writer_object_begin(writer);
    if (port->has_host_port && port->host_port)
        field_text(writer, "IP", text_empty(port->host_address) ? "0.0.0.0" : port->host_address);
    field_unsigned(writer, "PrivatePort", port->container_port);
    if (port->has_host_port && port->host_port)
        field_unsigned(writer, "PublicPort", port->host_port);
    field_text(writer, "Type", text_empty(port->protocol) ? "tcp" : port->protocol);
    json_writer_object_end(writer);
}

static bool has_port(const struct api_container_summary *container, const struct api_port *port)
{
    for (size_t i = 0; i < container->ports_count; i++)
        if (container->ports[i]->container_port == port->container_port &&
            text_equal(container->ports[i]->protocol, port->protocol))
            return true;
    return false;
}

/* "80/tcp", "8000-8010/udp": what of it is not published has no port of the machine. */
static void write_exposed(struct json_writer *writer, const struct api_container_summary *container,
                          const char *text)
{
    const char *slash = strchr(text, '/');
    struct api_port port = {.protocol = (char *)(uintptr_t)(slash ? slash + 1 : "tcp")};
    char *end;
    unsigned long first = strtoul(text, &end, 10);
    unsigned long last = *end == '-' ? strtoul(end + 1, NULL, 10) : first;

    for (; first && first <= last && last <= UINT16_MAX; first++) {
        port.container_port = (uint16_t)first;
        if (!has_port(container, &port))
            write_port(writer, &port);
    }
}

static void write_ports(struct json_writer *writer, const struct api_container_summary *container)
{
    const struct api_container_summary_details *details = container->details;

    json_writer_key(writer, "Ports");
    json_writer_array_begin(writer);
    for (size_t i = 0; i < container->ports_count; i++)
        write_port(writer, container->ports[i]);
    for (size_t i = 0; details && i < details->exposed_ports_count; i++)
        write_exposed(writer, container, details->exposed_ports[i]);
    json_writer_array_end(writer);
}

static void write_mount(struct json_writer *writer, const struct api_mount_point *mount)
{
    json_writer_object_begin(writer);
    field_text(writer, "Type", mount->type);
    if (mount->name)
        field_text(writer, "Name", mount->name);
    field_text(writer, "Source", mount->source);
    field_text(writer, "Destination", mount->target);
    if (mount->name)
        field_text(writer, "Driver", "local");
    field_text(writer, "Mode", mount->mode);
    field_boolean(writer, "RW", !mount->read_only);
    field_text(writer, "Propagation", mount->propagation);
    json_writer_object_end(writer);
}

static void write_details(struct json_writer *writer,
                          const struct api_container_summary_details *details)
{
    field_object_begin(writer, "HostConfig");
    field_text(writer, "NetworkMode", details->network_mode);
    json_writer_object_end(writer);
    field_object_begin(writer, "NetworkSettings");
    field_object_begin(writer, "Networks");
    for (size_t i = 0; i < details->networks_count; i++)
        inspect_write_place(writer, details->networks[i], NULL);
    json_writer_object_end(writer);
    json_writer_object_end(writer);
    json_writer_key(writer, "Mounts");
    json_writer_array_begin(writer);
    for (size_t i = 0; i < details->mounts_count; i++)
        write_mount(writer, details->mounts[i]);
    json_writer_array_end(writer);
}

static void write_names(struct json_writer *writer, char *const *names)
{
    json_writer_key(writer, "Names");
    json_writer_array_begin(writer);
    for (; names && *names; names++) {
        _cleanup_free_ char *name = xasprintf("/%s", *names);
        json_writer_string(writer, name);
    }
    json_writer_array_end(writer);
}

void docker_write_summary(struct json_writer *writer, const struct api_container_summary *container)
{
    json_writer_object_begin(writer);
    field_text(writer, "Id", container->id);
    write_names(writer, container->names);
    field_text(writer, "Image", container->image);
    field_text(writer, "ImageID", container->image_id);
    field_text(writer, "Command", container->command);
    field_integer(writer, "Created", seconds_of(container->created_at));
    write_ports(writer, container);
    field_map(writer, "Labels", container->labels);
    field_text(writer, "State", container->state);
    field_text(writer, "Status", container->status);
    if (container->has_size_rw)
        field_integer(writer, "SizeRw", container->size_rw);
    if (container->has_size_root_fs)
        field_integer(writer, "SizeRootFs", container->size_root_fs);
    if (container->details)
        write_details(writer, container->details);
    json_writer_object_end(writer);
}
