/*
 * Telling what happened: each function hands one event (or two) to the engine's on_event.
 */
#ifndef ENGINE_EVENTS_H
#define ENGINE_EVENTS_H

#include <stdbool.h>
#include <stdint.h>

struct container;
struct engine;
struct network;

struct event_attribute {
    const char *name;  /* NULL ends the list */
    const char *value; /* NULL: left out */
};

/* With the container's image and labels. attributes: NULL: no more than those. */
void event_container(const struct container *container, const char *action,
                     const struct event_attribute *attributes);
/* kill */
void event_container_signal(const struct container *container, int number);
/* oom, where it was one, and die. nanoseconds: how long it ran; < 0: not told. */
void event_container_died(const struct container *container, int exit_code, bool oom,
                          int64_t nanoseconds);
/* connect and disconnect, of a container's place on a network. */
void event_container_network(const struct container *container, const struct network *network,
                             const char *action);

/* exec_die and exec_detach. exit_code: NULL: not told. */
void event_exec(const struct container *container, const char *action, const char *exec_id,
                const char *exit_code);

/* Of a kind of things: those that nobody uses were removed. reclaimed: bytes. */
void event_pruned(struct engine *engine, const char *type, uint64_t reclaimed);

/* create and destroy. */
void event_network(struct engine *engine, const struct network *network, const char *action);
/* Of a USB device. */
void event_usb(struct engine *engine, const char *action, const char *id,
               const struct event_attribute *attributes);
/* create and destroy. */
void event_volume(struct engine *engine, const char *action, const char *name);
/* mount and unmount, of each volume that the container has. */
void event_container_volumes(const struct container *container, const char *action);
/* name: NULL or "": the image has none. */
void event_image(struct engine *engine, const char *action, const char *id, const char *name);

#endif
