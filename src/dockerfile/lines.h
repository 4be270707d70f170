/* A Dockerfile's text, cut into instructions. */
#ifndef DOCKERFILE_LINES_H
#define DOCKERFILE_LINES_H

#include <stdbool.h>
#include <stddef.h>

#include <base/error.h>

struct heredoc {
    char *name;    /* owned */
    char *content; /* owned; without tabs in front where the mark says so (<<-) */
    bool expand;   /* the name is not quoted: variables in it are replaced */
};

struct line {
    char *text;      /* owned: continuations joined, comments gone */
    unsigned number; /* of the first line in the file */
    struct heredoc *heredocs;
    size_t heredocs_count;
};

struct lines {
    char escape; /* of the parser directive */
    struct line *items;
    size_t count;
};

/* -EINVAL with a message that names the line. Finish it either way. */
int lines_read(const char *text, size_t length, struct lines *ret, struct error *err);
void lines_finish(struct lines *lines);

/* Whether the word is a mark of a heredoc (<<EOF, <<-'EOF'), and what it says. False: it is none.
 * ret is the caller's to finish (heredoc_finish). */
bool heredoc_parse(const char *word, struct heredoc *ret, bool *ret_strip);
void heredoc_finish(struct heredoc *heredoc);

#endif
