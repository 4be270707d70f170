/*
 * Parts of a container's document that are written in files of their own, and words that all have.
 */
#ifndef DOOR_INSPECT_PARTS_H
#define DOOR_INSPECT_PARTS_H

#include <schema/json.h>
#include <schema/management.h>

/* Go's zero time: what docker shows for "never". */
#define INSPECT_NEVER "0001-01-01T00:00:00Z"

/* docker's name of the driver whose layers are overlayfs folders. */
#define INSPECT_DRIVER "overlay2"

/* host_config.c */
void inspect_write_host_config(struct json_writer *writer,
                               const struct api_container_details *container);
const char *inspect_network_mode(const struct api_container_details *container);

/* container.c */

/* active: as they are published now, not as they were asked for. */
void inspect_write_ports(struct json_writer *writer, const char *key, struct api_port *const *ports,
                         size_t count, bool active);
/* "80/tcp" of what may be "80"; owned by the caller. */
char *inspect_port_key(const char *port);
/* A member: its place in the network of that name. id: of the container, which is among its names
 * on networks that somebody made; NULL: not so in lists. */
void inspect_write_place(struct json_writer *writer, const struct api_container_endpoint *place,
                         const char *id);
/* "ro,rslave"; owned by the caller. */
char *inspect_bind_options(const struct api_bind *bind);

#endif
