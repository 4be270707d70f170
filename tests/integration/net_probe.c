/*
 * Drives src/net from a test: one command a line on stdin, one answer a line on stdout, "ok ..." or
 * "error ERRNO MESSAGE". Network namespaces are numbered by their descriptor, and the test enters
 * them as /proc/PID/fd/N.
 *
 *     choose BRIDGE                          -> ok SUBNET
 *     open BRIDGE TABLE SUBNET               -> ok
 *     bridge NAME SUBNET SUBNET6|- FLAGS|-   -> ok (one more; flags: i(nternal), s(eparate),
 *                                               o(wn addresses); the first subnet that fits an
 *                                               endpoint's address decides on its bridge)
 *     unbridge NAME                          -> ok
 *     setup | teardown | close               -> ok
 *     endpoint ADDRESS LINK | none           -> ok FD MICROSECONDS
 *     connect ADDRESS LINK PORT              -> ok FD MICROSECONDS (endpoint, then a TCP connection
 *                                               from inside it to the gateway at once)
 *     add FD ADDRESS NAME | unlink NAME    -> ok MICROSECONDS (an interface at run time)
 *     names FD                               -> ok UDP-FD TCP-FD MICROSECONDS
 *     open-fd PATH                           -> ok FD
 *     drop FD                                -> ok
 *     spare WANTED                           -> ok MORE
 *     publish|restore|unpublish PROTOCOL ADDRESS PORT CONTAINER-ADDRESS CONTAINER-PORT
 *                                            -> ok PORT MICROSECONDS
 *     dispatch SECONDS                       -> ok REBUILT (waits for a notification first)
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <base/error.h>
#include <net/net.h>

enum { WORDS_MAX = 7 };

enum { BRIDGES_MAX = 16 };

static struct net *net;
static struct net_subnet subnet;

static struct bridge {
    char name[16];
    struct net_subnet subnet;
    struct net_subnet6 subnet6;
    struct net_bridge *bridge;
} bridges[BRIDGES_MAX];
static size_t bridges_count;

static long microseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000L + now.tv_nsec / 1000;
}

static int do_choose(char **word, struct error *err)
{
    char text[NET_SUBNET_TEXT];
    int r = net_choose_subnet(net, word[1], &subnet, err);

    if (r == 0)
        printf("ok %s\n", net_subnet_format(&subnet, text));
    return r;
}

static int add_bridge(const struct net_bridge_config *config, struct error *err)
{
    struct bridge *bridge = &bridges[bridges_count];
    int r = net_bridge_add(net, config, &bridge->bridge, err);

    if (r < 0)
        return r;
    snprintf(bridge->name, sizeof(bridge->name), "%s", config->name);
    bridge->subnet = config->subnet;
    bridge->subnet6 = config->subnet6;
    bridges_count++;
    return 0;
}

static int do_open(char **word, struct error *err)
{
    struct net_bridge_config config = {.name = word[1]};
    int r = net_subnet_parse(word[3], &config.subnet, err);

    bridges_count = 0;
    if (r == 0)
        r = net_open(word[2], getenv("NET_PROBE_STATE"), &net, err);
    if (r == 0)
        r = add_bridge(&config, err);
    if (r == 0)
        printf("ok\n");
    subnet = config.subnet;
    return r;
}

static int do_bridge(char **word, struct error *err)
{
    struct net_bridge_config config = {
        .name = word[1],
        .internal = strchr(word[4], 'i'),
        .separate = strchr(word[4], 's'),
        .own_addresses = strchr(word[4], 'o'),
    };
    int r = net_subnet_parse(word[2], &config.subnet, err);

    if (r == 0 && strcmp(word[3], "-") != 0)
        r = net_subnet6_parse(word[3], &config.subnet6, err);
    if (r == 0 && bridges_count == BRIDGES_MAX)
        r = error_set(err, -ENOSPC, "too many bridges");
    if (r == 0)
        r = add_bridge(&config, err);
    if (r == 0)
        printf("ok\n");
    return r;
}

static int do_unbridge(char **word, struct error *err)
{
    for (size_t i = 0; i < bridges_count; i++) {
        if (strcmp(bridges[i].name, word[1]) != 0)
            continue;
        int r = net_bridge_remove(net, bridges[i].bridge, err);
        if (r == 0)
            r = net_link_delete(word[1], err);
        if (r == 0) {
            bridges[i] = bridges[--bridges_count];
            printf("ok\n");
        }
        return r;
    }
    return error_set(err, -ENOENT, "no such bridge");
}

static int do_close(char **word, struct error *err)
{
    net_close(net);
    net = NULL;
    printf("ok\n");
    return 0;
}

static int do_setup(char **word, struct error *err)
{
    long start = microseconds();
    int r = net_setup(net, err);

    if (r == 0)
        printf("ok %ld\n", microseconds() - start);
    return r;
}

static int do_teardown(char **word, struct error *err)
{
    int r = net_teardown(net, err);

    if (r == 0)
        printf("ok\n");
    return r;
}

static const struct bridge *bridge_of(struct in_addr address)
{
    for (size_t i = 0; i < bridges_count; i++) {
        if (net_subnet_contains(&bridges[i].subnet, address))
            return &bridges[i];
    }
    return &bridges[0];
}

static int fill_interface(struct net_interface *interface, const char *address, const char *host,
                          struct error *err)
{
    int r = net_address_parse(address, &interface->address, err);

    if (r < 0)
        return r;
    const struct bridge *bridge = bridge_of(interface->address);
    interface->bridge = bridge->bridge;
    snprintf(interface->host_name, sizeof(interface->host_name), "%s", host);
    /* The same number in both subnets. */
    interface->address6 = net_subnet6_at(&bridge->subnet6, ntohl(interface->address.s_addr) & 0xff);
    return 0;
}

static int create(char **word, int *ret_fd, struct error *err)
{
    struct net_interface interface = {.name = "eth0", .default_route = true};
    int r;

    if (strcmp(word[0], "none") == 0)
        return net_endpoint_create(net, -1, NULL, 0, ret_fd, err);
    r = fill_interface(&interface, word[1], word[2], err);
    return r < 0 ? r : net_endpoint_create(net, -1, &interface, 1, ret_fd, err);
}

static int do_add(char **word, struct error *err)
{
    struct net_interface interface = {0};
    char host[16];
    long start = microseconds();

    snprintf(interface.name, sizeof(interface.name), "%s", word[3]);
    snprintf(host, sizeof(host), "x%.9s", strrchr(word[2], '.') + 1);
    int r = fill_interface(&interface, word[2], host, err);
    if (r == 0)
        r = net_interface_add(net, atoi(word[1]), &interface, err);
    if (r == 0)
        printf("ok %ld\n", microseconds() - start);
    return r;
}

static int do_unlink(char **word, struct error *err)
{
    long start = microseconds();
    int r = net_link_delete(word[1], err);

    if (r == 0)
        printf("ok %ld\n", microseconds() - start);
    return r;
}

static int do_names(char **word, struct error *err)
{
    struct net_names_sockets sockets;
    long start = microseconds();
    int r = net_names_open(net, atoi(word[1]), true, &sockets, err);

    if (r == 0)
        printf("ok %d %d %ld\n", sockets.udp_fd, sockets.tcp_fd, microseconds() - start);
    return r;
}

static int do_endpoint(char **word, struct error *err)
{
    long start = microseconds();
    int fd, r = create(word, &fd, err);

    if (r == 0)
        printf("ok %d %ld\n", fd, microseconds() - start);
    return r;
}

static int connect_inside(int netns, const char *port, struct error *err)
{
    const struct timeval limit = {.tv_sec = 3};
    const struct sockaddr_in gateway = {
        .sin_family = AF_INET,
        .sin_addr = subnet.gateway,
        .sin_port = htons((uint16_t)atoi(port)),
    };
    _cleanup_close_ int own = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    _cleanup_close_ int fd = -1;

    if (setns(netns, CLONE_NEWNET) < 0)
        return error_errno(err, errno, "enter the namespace");
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    int r = connect(fd, (const struct sockaddr *)&gateway, sizeof(gateway)) < 0 ? -errno : 0;
    if (setns(own, CLONE_NEWNET) < 0)
        abort();
    return r < 0 ? error_errno(err, -r, "connect to the gateway") : 0;
}

static int do_connect(char **word, struct error *err)
{
    int fd, r = create(word, &fd, err);
    long start = microseconds();

    if (r == 0)
        r = connect_inside(fd, word[3], err);
    if (r == 0)
        printf("ok %d %ld\n", fd, microseconds() - start);
    return r;
}

static int do_open_fd(char **word, struct error *err)
{
    int fd = open(word[1], O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return error_errno(err, errno, "open %s", word[1]);
    printf("ok %d\n", fd);
    return 0;
}

static int do_drop(char **word, struct error *err)
{
    close(atoi(word[1]));
    printf("ok\n");
    return 0;
}

static int do_spare(char **word, struct error *err)
{
    int r = net_prepare_spare(net, (unsigned)atoi(word[1]), err);

    if (r >= 0)
        printf("ok %d\n", r);
    return r;
}

static int read_publication(char **word, struct net_publication *ret, struct error *err)
{
    int r = net_ip_parse(word[2], &ret->host_address, err);

    if (r == 0)
        r = net_ip_parse(word[4], &ret->container_address, err);
    ret->protocol = strcmp(word[1], "udp") == 0 ? NET_UDP : NET_TCP;
    ret->host_port = (uint16_t)atoi(word[3]);
    ret->container_port = (uint16_t)atoi(word[5]);
    return r;
}

static int do_publication(char **word, struct error *err)
{
    struct net_publication publication;
    int r = read_publication(word, &publication, err);
    long start = microseconds();

    if (r == 0 && strcmp(word[0], "publish") == 0)
        r = net_publish(net, &publication, err);
    else if (r == 0 && strcmp(word[0], "restore") == 0)
        r = net_restore_publication(net, &publication, err);
    else if (r == 0)
        r = net_unpublish(net, &publication, err);
    if (r == 0)
        printf("ok %u %ld\n", publication.host_port, microseconds() - start);
    return r;
}

static int do_dispatch(char **word, struct error *err)
{
    struct pollfd readable = {.fd = net_poll_fd(net), .events = POLLIN};

    poll(&readable, 1, atoi(word[1]) * 1000);
    int r = net_dispatch(net, err);
    if (r >= 0)
        printf("ok %d\n", r);
    return r;
}

static const struct command {
    const char *name;
    int words;
    int (*run)(char **word, struct error *err);
} commands[] = {
    {"choose", 2, do_choose},
    {"open", 4, do_open},
    {"bridge", 5, do_bridge},
    {"unbridge", 2, do_unbridge},
    {"add", 4, do_add},
    {"unlink", 2, do_unlink},
    {"names", 2, do_names},
    {"close", 1, do_close},
    {"setup", 1, do_setup},
    {"teardown", 1, do_teardown},
    {"endpoint", 3, do_endpoint},
    {"none", 1, do_endpoint},
    {"connect", 4, do_connect},
    {"open-fd", 2, do_open_fd},
    {"drop", 2, do_drop},
    {"spare", 2, do_spare},
    {"publish", 6, do_publication},
    {"restore", 6, do_publication},
    {"unpublish", 6, do_publication},
    {"dispatch", 2, do_dispatch},
};

static int run(char *line, struct error *err)
{
    char *word[WORDS_MAX + 1] = {NULL};
    int words = 0;

    for (char *w = strtok(line, " \n"); w && words < WORDS_MAX; w = strtok(NULL, " \n"))
        word[words++] = w;
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        if (words == commands[i].words && strcmp(word[0], commands[i].name) == 0)
            return commands[i].run(word, err);
    }
    return error_set(err, -EINVAL, "unknown command");
}

int main(void)
{
    char line[512];

    while (fgets(line, sizeof(line), stdin)) {
        _cleanup_error_ struct error err = ERROR_INIT;
        int r = run(line, &err);

        if (r < 0)
            printf("error %s %s\n", strerrorname_np(-r), error_message(&err));
        fflush(stdout);
    }
    net_close(net);
    return 0;
}
