/*
 * A container whose record cannot be read may run nevertheless, and nobody may get its addresses
 * meanwhile. What these are is asked from the kernel: its run folder names its monitor, which holds
 * its network namespace. Its published ports are kept by the sockets of cloche-relay.
 */
#include "unreadable.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/log.h>
#include <base/text.h>
#include <monitor/status.h>

#include "place.h"

/* Whether the monitor that wrote the status file lives: its number may be another's by now. */
static int find_monitor(const struct container *container, pid_t *ret)
{
    _cleanup_free_ char *path = container_run_path(container, NULL);
    _cleanup_close_ int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct monitor_status status;
    uint64_t written, started;

    if (folder < 0 || monitor_status_read_monitor(folder, &status, &written, NULL) < 0 ||
        status.state == MONITOR_STATE_EXITED || status.monitor_pid <= 0 ||
        process_start_time((pid_t)status.monitor_pid, &started) < 0 ||
        (written && written != started))
        return -ESRCH;
    *ret = (pid_t)status.monitor_pid;
    return 0;
}

/* -ENOENT: it has none of its own. */
static int open_network(const struct container *container, int *ret_fd, struct error *err)
{
    _cleanup_free_ char *bound = container_run_path(container, "netns");
    pid_t monitor;
    int r = find_monitor(container, &monitor);

    if (r < 0)
        return error_set(err, r, "container %.12s does not run", container->id);
    _cleanup_free_ char *path = xasprintf("/proc/%d/root%s", (int)monitor, bound);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_errno(err, errno, "open the network of container %.12s", container->id);
    *ret_fd = fd;
    return 0;
}

static struct network *network_of(struct engine *engine, const struct net_ip *address)
{
    for (size_t i = 0; i < engine->networks_count; i++) {
        struct network *network = engine->networks[i];

        if (network->kind != NETWORK_BRIDGE || !network->bridge)
            continue;
        if (address->family == AF_INET ? net_subnet_contains(&network->subnet, address->v4)
                                       : net_subnet6_contains(&network->subnet6, &address->v6))
            return network;
    }
    return NULL;
}

static struct place *place_on(struct container *container, struct network *network)
{
    struct place *place = places_find(container, network);

    if (place)
        return place;
    if (container->places_count >= ENGINE_PLACES_MAX)
        return NULL;
    place = place_new(container, network->record->name, NULL);
    place->network = network;
    memcpy(place->network_id, network->id, sizeof(place->network_id));
    place->interface.bridge = network->bridge;
    return place;
}

static void hold(const struct net_ip *address, void *data)
{
    struct container *container = data;
    struct network *network = network_of(container->engine, address);
    struct place *place = network ? place_on(container, network) : NULL;

    if (!place)
        return;
    if (address->family == AF_INET6)
        place->interface.address6 = address->v6;
    /* Only what nobody else has: it may share the network of a container that can be read. */
    else if (!place->held && net_pool_reserve(network->addresses, address->v4, NULL) == 0) {
        place->interface.address = address->v4;
        place->held = true;
    }
}

void unreadable_hold(struct container *container)
{
    struct engine *engine = container->engine;
    _cleanup_close_ int fd = -1;
    _cleanup_error_ struct error err = ERROR_INIT;

    places_free(container);
    if (!engine->net)
        return;
    int r = open_network(container, &fd, &err);
    if (r == 0)
        r = net_each_address(engine->net, fd, hold, container, &err);
    if (r < 0 && r != -ESRCH && r != -ENOENT)
        log_failure(LOG_ERROR, &err, "the addresses of container %.12s may be given to others",
                    container->id);
}

void unreadable_kill(struct container *container)
{
    pid_t monitor;

    if (find_monitor(container, &monitor) == 0)
        kill(monitor, SIGKILL);
    /* What its row says is not known: it counts as running, for it to be cleaned up. */
    container->state = CONTAINER_RUNNING;
    container_recover(container);
}

void unreadable_release(struct container *container)
{
    for (size_t i = 0; i < container->places_count; i++)
        place_release(container->places[i]);
}
