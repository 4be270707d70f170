/*
 * A cloche-door that runs, and the socket between it and the daemon.
 *
 *     door_process_start()    a program with the sockets of the places
 *     ... handed()            a client has come: its connection, and who it is
 *     door_process_retire()   it takes no more clients, looks at those that it has, and goes with
 * the last of them
 *     ... ended()             and is nothing any more
 */
#ifndef CLOCHED_DOOR_PROCESS_H
#define CLOCHED_DOOR_PROCESS_H

#include <stddef.h>
#include <stdint.h>

#include <base/error.h>

struct door_process;
struct rpc_loop;

struct door_process_options {
    struct rpc_loop *loop;
    const char *program;
    char *const *argv;
    const int *sockets; /* stay the caller's; in the order of argv */
    size_t sockets_count;
    /* fd: owned by the one who is called. text: what the door says of it, who may have been broken
     * into. */
    void (*handed)(int fd, const char *text, size_t length, void *data);
    /* It is freed afterwards. status as wait(2) has it; not 0 for one that was ended since it made
     * no sense. */
    void (*ended)(struct door_process *process, int status, void *data);
    void *data;
};

/* Descriptors' numbers in the door. */
enum { DOOR_CONTROL_FD = 3, DOOR_SOCKETS_FD = 4, DOOR_SOCKETS_MAX = 16 };

int door_process_start(const struct door_process_options *options, struct door_process **ret,
                       struct error *err);
uint64_t door_process_started(const struct door_process *process); /* loop time */

/* ca, crl: descriptors of what is now trusted, -1: no certificates are asked for, none are revoked;
 * they stay the caller's. Connections whose certificate does not fit them any more are closed. */
void door_process_retire(struct door_process *process, int ca, int crl);

/* Ends it, and waits for that, for a second at most. ended() is not called. NULL is nothing. */
void door_process_destroy(struct door_process *process);

#endif
