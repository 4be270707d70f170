/*
 * The plain part of a filter: system calls that pass, or fail with a number, whatever their
 * arguments are. It stands before libseccomp's program, which decides the others.
 */
#ifndef RUNTIME_FILTER_PLAIN_H
#define RUNTIME_FILTER_PLAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <base/buffer.h>

/* One name of one rule of a profile. */
struct filter_call {
    const char *name; /* borrowed */
    size_t rule;      /* index in the profile */
    uint32_t action;  /* SCMP_ACT_* */
    int number;       /* libseccomp's on this machine; negative: other architectures have it */
    bool conditional; /* the rule looks at arguments */
    bool plain;       /* the plain part decides it, and libseccomp need not know of it */
    bool anchor;      /* a plain one that libseccomp is told of all the same */
};

/* All of them that libseccomp knows, and the architectures that the filter is for. */
struct filter_calls {
    struct filter_call *list;
    size_t count;
    const uint32_t *tokens; /* borrowed; SCMP_ARCH_* */
    size_t token_count;
    int *numbers; /* owned; on each architecture, of each call: see filter_plain_number */
};

/* The number on tokens[token]; negative: it is not there. */
static inline int filter_plain_number(const struct filter_calls *calls, size_t token, size_t call)
{
    return calls->numbers[token * calls->count + call];
}

/* Fills in the numbers and sets `plain` where that is the same as what libseccomp does. */
void filter_plain_mark(struct filter_calls *calls);

/* Appends the instructions (struct sock_filter) for the plain ones, if they were marked. All others
 * fall through. */
void filter_plain_append(const struct filter_calls *calls, struct buffer *out);

void filter_calls_finish(struct filter_calls *calls);

#endif
