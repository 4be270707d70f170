/* A compiled wildcard pattern. */
#ifndef DOCKERFILE_GLOB_H
#define DOCKERFILE_GLOB_H

#include <stdbool.h>
#include <stddef.h>

#include <dockerfile/ignore.h>

enum glob_kind {
    GLOB_CHARACTER,
    GLOB_ONE,      /* ? */
    GLOB_STAR,     /* * */
    GLOB_CLASS,    /* [...] */
    GLOB_ANYTHING, /* ** at the end: also slashes */
    GLOB_FOLDERS,  /* ** and a slash: any number of folders */
};

struct glob_token {
    enum glob_kind kind;
    char character;
    const char *from, *to; /* of a class, in the pattern */
};

/* Points into the pattern. */
struct glob {
    struct glob_token *tokens; /* owned */
    size_t count;
};

/* deep: ** is more than *. False: malformed. Finish it either way. */
bool glob_compile(struct glob *glob, const char *pattern, bool deep);
bool glob_matches(const struct glob *glob, const char *text);
void glob_finish(struct glob *glob);

#endif
