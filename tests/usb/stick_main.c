/* A USB stick by USB/IP on loopback: stick --help. */
#include <arpa/inet.h>
#include <getopt.h>
#include <inttypes.h>
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
    "  --beyond folds|wraps|vanishes  what those are that it has not\n"
    "  --varying FIRST:COUNT  sectors that are others each second time, by --seed N\n"
    "  --drops N       the WRITE from which on none is carried out\n"
    "  --late MS       that each command takes\n"
    "  --change-at N   the command with which the medium becomes --next-image FILE\n"
    "  --strings HEX, --inquiry HEX  what it says of itself, repeated\n"
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
    {"beyond", required_argument, NULL, 'B'},
    {"varying", required_argument, NULL, 'V'},
    {"seed", required_argument, NULL, 'x'},
    {"drops", required_argument, NULL, 'd'},
    {"late", required_argument, NULL, 'l'},
    {"change-at", required_argument, NULL, 'm'},
    {"next-image", required_argument, NULL, 'M'},
    {"strings", required_argument, NULL, 't'},
    {"inquiry", required_argument, NULL, 'q'},
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

/* Which word it is of a list that ends with NULL; -1: none. */
static int find_word(const char *word, const char *const *words)
{
    for (int i = 0; words[i]; i++)
        if (strcmp(word, words[i]) == 0)
            return i;
    return -1;
}

static const char *const provisionings[] = {"both", "unmap", "ws16", "none", NULL};
static const char *const beyonds[] = {"folds", "wraps", "vanishes", NULL};

/* As often as there is room. */
static const uint8_t *take_hex(const char *text, uint8_t *to, size_t room)
{
    size_t size = strlen(text) / 2;
    for (size_t i = 0; size > 0 && i < room; i++) {
        char digits[3] = {text[2 * (i % size)], text[2 * (i % size) + 1], 0};
        to[i] = (uint8_t)strtoul(digits, NULL, 16);
    }
    return to;
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
    uint8_t strings[STICK_STRING], inquiry[STICK_INQUIRY_SIZE];
    uint16_t port = 0;
    bool counts = false;
    int word;
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
            word = find_word(optarg, provisionings);
            if (word < 0)
                return help(2);
            options.provisioning = (enum stick_provisioning)word;
            break;
        case 'B':
            word = find_word(optarg, beyonds);
            if (word < 0)
                return help(2);
            options.beyond = (enum stick_beyond)word;
            break;
        case 'V':
            if (sscanf(optarg, "%" SCNu64 ":%" SCNu64, &options.varying_first,
                       &options.varying_count) != 2)
                return help(2);
            break;
        case 'x':
            options.chance = (unsigned)number;
            break;
        case 'd':
            options.drops_from = (unsigned)number;
            break;
        case 'l':
            options.late_ms = (unsigned)number;
            break;
        case 'm':
            options.changes_at = (unsigned)number;
            break;
        case 'M':
            options.next_image = optarg;
            break;
        case 't':
            options.strings = take_hex(optarg, strings, sizeof(strings));
            break;
        case 'q':
            options.inquiry = take_hex(optarg, inquiry, sizeof(inquiry));
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
    if (options.changes_at && !options.next_image)
        return help(2);
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
        if (options.varying_count) {
            printf("varied %u\n", stick_counts(stick).varied);
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
