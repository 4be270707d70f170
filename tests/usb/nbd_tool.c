/* An image served by an NBD door to one client of a Unix socket: nbd-tool [--read-only] [--bare]
 * IMAGE SOCKET. Says what became of the client. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <block/file.h>
#include <doors/nbd.h>

static int accept_one(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    if (bind(listener, (struct sockaddr *)&address, sizeof(address)) != 0 ||
        listen(listener, 1) != 0)
        return -1;
    printf("ready\n");
    fflush(stdout);
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    close(listener);
    return fd;
}

static void say(struct nbd_door *door, int result, const char *message, void *data)
{
    printf("%s: %s\n", result == 0 ? "ended" : strerror(-result), message);
    fflush(stdout);
    close(*(int *)data);
}

int main(int argc, char **argv)
{
    struct nbd_door_options options = {.negotiates = true, .ended = say};
    struct block_device *device;
    struct nbd_door *door;
    struct error err = ERROR_INIT;
    int at = 1, ended[2];
    char nothing;
    for (; at < argc && argv[at][0] == '-'; at++) {
        options.read_only |= strcmp(argv[at], "--read-only") == 0;
        options.negotiates &= strcmp(argv[at], "--bare") != 0;
    }
    if (argc - at != 2 || pipe2(ended, O_CLOEXEC) != 0)
        return 2;
    options.data = &ended[1];
    int r = block_file_open(open(argv[at], O_RDWR | O_CLOEXEC), 512, false, &device, &err);
    if (r == 0)
        r = nbd_door_open(device, accept_one(argv[at + 1]), &options, &door, &err);
    if (r != 0) {
        fprintf(stderr, "nbd-tool: %s\n", error_message(&err));
        return 1;
    }
    while (read(ended[0], &nothing, 1) < 0 && errno == EINTR)
        ;
    nbd_door_close(door);
    block_device_destroy(device);
    return 0;
}
