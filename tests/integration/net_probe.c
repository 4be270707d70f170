/*
 * Drives src/net from a test: one command a line on stdin, one answer a line on stdout, "ok ..." or
 * "error ERRNO MESSAGE". Network namespaces are numbered by their descriptor, and the test enters
 * them as /proc/PID/fd/N.
 *
 *     choose BRIDGE                          -> ok SUBNET
 *     open BRIDGE TABLE SUBNET               -> ok
 *     setup | teardown | close               -> ok
 *     endpoint ADDRESS LINK | none           -> ok FD MICROSECONDS
 *     connect ADDRESS LINK PORT              -> ok FD MICROSECONDS (endpoint, then a TCP connection
 *                                               from inside it to the gateway at once)
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

static struct net *net;
static struct net_subnet subnet;

static long microseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000L + now.tv_nsec / 1000;
}

static int do_choose(char **word, struct error *err)
{
    char text[NET_SUBNET_TEXT];
    int r = net_choose_subnet(word[1], &subnet, err);

    if (r == 0)
        printf("ok %s\n", net_subnet_format(&subnet, text));
    return r;
}

static int do_open(char **word, struct error *err)
{
    struct net_config config = {.bridge = word[1], .nft_table = word[2]};
    int r = net_subnet_parse(word[3], &config.subnet, err);

    if (r == 0)
        r = net_open(&config, &net, err);
    if (r == 0)
        printf("ok\n");
    subnet = config.subnet;
    return r;
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

static int create(char **word, int *ret_fd, struct error *err)
{
    struct net_endpoint endpoint = {.link_name = word[2]};
    int r;

    if (strcmp(word[0], "none") == 0)
        return net_endpoint_create_none(net, ret_fd, err);
    r = net_address_parse(word[1], &endpoint.address, err);
    return r < 0 ? r : net_endpoint_create(net, &endpoint, ret_fd, err);
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
    int r = net_address_parse(word[2], &ret->host_address, err);

    if (r == 0)
        r = net_address_parse(word[4], &ret->container_address, err);
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
    {"close", 1, do_close},
    {"setup", 1, do_setup},
    {"teardown", 1, do_teardown},
    {"endpoint", 3, do_endpoint},
    {"none", 1, do_endpoint},
    {"connect", 4, do_connect},
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
