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

/* Warnings go to standard output. */
struct cloche_runtime *open_runtime(bool direct);

/* Threads that make and end containers at once, each its own and all of them one. */
void stress(void);

/* Lives of containers one after the other, directly or in forks: what is left of each. */
void repeat_direct(void);
void repeat_in_forks(void);

#endif
