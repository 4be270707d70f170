/* A USB stick by USB/IP on loopback: stick --help. */
#include <arpa/inet.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "stick.h"

static const char usage[] =
    "usage: stick [OPTION...] [FAULT...]\n"
    "Serves one USB stick, bus ID 1-1, to one USB/IP client at a time.\n"
    "  --port N        to listen on, of 127.0.0.1; 0: any. The port is printed\n"
    "  --image FILE    the disk; else memory\n"
    "  --sectors N     of memory\n"
    "  --pretend N     sectors that it says it has\n"
    "  --sector-size N 512 to 4096\n"
    "  --units N       1 to 16, of each interface\n"
    "  --interfaces N  1 to 4; those behind the first have memory\n"
    "  --configurations 2  the first is a keyboard\n"
    "  --volatile SEED what was not flushed is lost, by chance, when the client goes\n"
    "  --count         says how often it was told to keep its medium and to let go of it, when the "
    "client goes\n"
    "  --slow MS       that each READ and WRITE takes\n"
    "  --provisioning both|unmap|ws16|none  how it can be told what is not needed any more\n"
    "  --uas           knows UAS beside bulk-only transport; --uas-only: nothing else\n"
    "  --read-only, --fixed, --uncached\n"
    "FAULT: NAME, NAME@N (with the N-th READ or WRITE), NAME@N+ (and all that follow)\n";

static const struct option long_options[] = {
    {"port", required_argument, NULL, 'p'},
    {"image", required_argument, NULL, 'i'},
    {"sectors", required_argument, NULL, 's'},
    {"sector-size", required_argument, NULL, 'z'},
    {"pretend", required_argument, NULL, 'P'},
    {"units", required_argument, NULL, 'u'},
    {"interfaces", required_argument, NULL, 'I'},
    {"configurations", required_argument, NULL, 'C'},
    {"volatile", required_argument, NULL, 'v'},
    {"read-only", no_argument, NULL, 'r'},
    {"fixed", no_argument, NULL, 'f'},
    {"uncached", no_argument, NULL, 'c'},
    {"uas", no_argument, NULL, 'a'},
    {"uas-only", no_argument, NULL, 'A'},
    {"help", no_argument, NULL, 'h'},
    {"slow", required_argument, NULL, 'S'},
    {"count", no_argument, NULL, 'n'},
    {"provisioning", required_argument, NULL, 'w'},
    {0},
};

static int help(int code)
{
    fputs(usage, code ? stderr : stdout);
    stick_list_faults(code ? stderr : stdout);
    return code;
}

static bool find_provisioning(const char *name, enum stick_provisioning *ret)
{
    static const char *const names[] = {"both", "unmap", "ws16", "none"};
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(name, names[i]) == 0) {
            *ret = (enum stick_provisioning)i;
            return true;
        }
    return false;
}

static int listen_on(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    socklen_t size = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) != 0 || listen(fd, 4) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) != 0)
        return -1;
    printf("%u\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

int main(int argc, char **argv)
{
    struct stick_options options = {0};
    uint16_t port = 0;
    bool counts = false;
    const char *error;
    for (int option; (option = getopt_long(argc, argv, "", long_options, NULL)) != -1;) {
        unsigned long long number = optarg ? strtoull(optarg, NULL, 0) : 0;
        switch (option) {
        case 'p':
            port = (uint16_t)number;
            break;
        case 'i':
            options.image = optarg;
            break;
        case 's':
            options.sectors = number;
            break;
        case 'P':
            options.pretended = number;
            break;
        case 'n':
            counts = true;
            break;
        case 'S':
            options.slow_ms = (unsigned)number;
            break;
        case 'w':
            if (!find_provisioning(optarg, &options.provisioning))
                return help(2);
            break;
        case 'z':
            options.sector_size = (uint32_t)number;
            break;
        case 'u':
            options.units = (unsigned)number;
            break;
        case 'I':
            options.interfaces = (unsigned)number;
            break;
        case 'C':
            options.configurations = (unsigned)number;
            break;
        case 'v':
            options.is_volatile = true;
            options.chance = (unsigned)number;
            break;
        case 'a':
            options.uas = true;
            break;
        case 'A':
            options.uas_only = true;
            break;
        case 'r':
            options.read_only = true;
            break;
        case 'f':
            options.fixed = true;
            break;
        case 'c':
            options.uncached = true;
            break;
        default:
            return help(option == 'h' ? 0 : 2);
        }
    }
    struct stick *stick = options.units > 16 ? NULL : stick_create(&options, &error);
    if (!stick) {
        fprintf(stderr, "stick: %s\n", options.units > 16 ? "too many units" : error);
        return 1;
    }
    for (; optind < argc; optind++)
        if (!stick_add_fault(stick, argv[optind]))
            return help(2);
    int listener = listen_on(port);
    if (listener < 0) {
        perror("stick: listen");
        return 1;
    }
    for (int fd, one = 1; (fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0; close(fd)) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        stick_serve(stick, fd);
        if (counts) {
            struct stick_counts told = stick_counts(stick);
            printf("prevents %u, allows %u\n", told.prevents, told.allows);
            fflush(stdout);
        }
        if (options.is_volatile) {
            stick_lose_power(stick);
            puts("lost");
            fflush(stdout);
        }
    }
    return 0;
}
