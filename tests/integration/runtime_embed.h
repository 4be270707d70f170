/* What the files of runtime_embed share. A scenario ends the program with 1 when something is not
 * as it should be. */
#ifndef RUNTIME_EMBED_H
#define RUNTIME_EMBED_H

#include <stdbool.h>

#include <cloche/runtime.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define EMBED_SANITIZED true
#else
#define EMBED_SANITIZED false
#endif

extern const char *root, *bundle, *id; /* of the command line */

_Noreturn void fail(const char *what);

/* Fails with the library's text when result is an error. */
void check(struct cloche_runtime *runtime, int result, const char *what);

/* The allocators of gcc 12's sanitizers cannot be used in a fork that was made while another thread
 * was in them, started or ended. So there no thread is in the library while one forks; without a
 * sanitizer these do nothing. */
void enter(bool forks);
void leave(void);

/* Runs the function in count threads, with the numbers from 0; they begin when all are there, and
 * end together. */
void run_threads(int count, void (*function)(int number));

/* Warnings go to standard output. */
struct cloche_runtime *open_runtime(bool direct);

/* Threads that make and end containers at once, each its own and all of them one. */
void stress(void);

/* Lives of containers one after the other, directly or in forks: what is left of each. */
void repeat_direct(void);
void repeat_in_forks(void);

#endif
