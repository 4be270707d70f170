/*
 * The head of an HTTP/1.1 request, read strictly: what two readers could read in two ways is
 * refused. No input or output, no state.
 */
#ifndef DOOR_DOCKER_HEAD_H
#define DOOR_DOCKER_HEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    HEAD_MAX = 1 << 20, /* bytes, the empty line included, as Go has it; X-Registry-Config is long
                           with a dozen registries */
    HEAD_FIELDS_MAX = 100, /* headers */
    HEAD_METHOD_MAX = 16,
    HEAD_NO_LENGTH = -1,
};

struct head {
    char method[HEAD_METHOD_MAX];
    char *target;   /* owned; begins with "/" */
    char **names;   /* owned, as they came */
    char **values;  /* owned, without the blanks around them */
    bool old;       /* HTTP/1.0 */
    bool keep;      /* the connection may have another request after it */
    bool chunked;   /* how its body comes; */
    int64_t length; /* or how long it is; HEAD_NO_LENGTH: none was said */
    bool upgrade;   /* `Connection: Upgrade`, to tcp */
    bool expects;   /* Expect: 100-continue */
};

/* How many bytes the head that begins here has, its empty line included; 0: it is not whole yet.
 * Empty lines before it are part of it (RFC 9112, 2.2). */
size_t head_length(const char *text, size_t length);

/* Reads one of head_length() bytes. 0, or the HTTP status of what is wrong with it, with a line
 * about that in *ret_problem; *ret is written on success only. */
unsigned head_parse(const char *text, size_t length, struct head *ret, const char **ret_problem);
void head_finish(struct head *head);

/* The first value; NULL: there is no such header. Names are compared without case. */
const char *head_field(const struct head *head, const char *name);

#endif
