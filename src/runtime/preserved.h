/*
 * The caller's descriptors that a program keeps: those of LISTEN_FDS, then those of --preserve-fds,
 * from 3 on.
 */
#ifndef RUNTIME_PRESERVED_H
#define RUNTIME_PRESERVED_H

#include <stddef.h>

#include <base/error.h>

struct preserved {
    unsigned count; /* from 3 on, up to the last one that the caller has open */
    int *absent;    /* owned; those that the caller has not open. Stand-ins have their places,
                       lest a file of ours comes to lie there; the program does not get them */
    size_t absent_count;
};

/* Before anything is opened. As crun has it, what is not open is none of the program's either;
 * runc refuses it: there is a warning. */
int preserved_init(struct preserved *preserved, unsigned preserve_fds, unsigned listen_fds,
                   char ***warnings, struct error *err);

/* Closes the stand-ins. */
void preserved_finish(struct preserved *preserved);

/* In the child, before it executes: the others shall stay open. */
void preserved_release(struct preserved *preserved);

#endif
