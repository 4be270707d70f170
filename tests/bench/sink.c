/*
 * usage: sink PORT
 *
 * Accepts connections, one after another, sends a byte and closes: the smallest server there is, so
 * that the way to it is what a rate of connections tells. Static, for an image without libraries.
 */
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

    if (argc != 2) {
        fprintf(stderr, "usage: sink PORT\n");
        return 2;
    }
    address.sin_port = htons((uint16_t)strtoul(argv[1], NULL, 10));
    if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
        bind(listener, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(listener, SOMAXCONN) < 0) {
        perror("sink");
        return 1;
    }
    for (;;) {
        int connection = accept(listener, NULL, NULL);

        if (connection < 0)
            continue;
        if (write(connection, "x", 1) != 1)
            perror("write");
        close(connection);
    }
}
