/* One instruction: its word, flags and arguments. */
#ifndef DOCKERFILE_INSTRUCTION_H
#define DOCKERFILE_INSTRUCTION_H

#include <stdbool.h>
#include <stddef.h>

#include <base/error.h>

#include "lines.h"

enum word {
    WORD_ADD,
    WORD_ARG,
    WORD_CMD,
    WORD_COPY,
    WORD_ENTRYPOINT,
    WORD_ENV,
    WORD_EXPOSE,
    WORD_FROM,
    WORD_HEALTHCHECK,
    WORD_LABEL,
    WORD_MAINTAINER,
    WORD_ONBUILD,
    WORD_RUN,
    WORD_SHELL,
    WORD_STOPSIGNAL,
    WORD_USER,
    WORD_VOLUME,
    WORD_WORKDIR,
    WORD_COUNT,
};

struct instruction {
    enum word word;
    const char *name;         /* "COPY"; static */
    unsigned number;          /* line of the file; 0: of a trigger */
    char *text;               /* owned: the whole, without blanks around */
    char *rest;               /* owned: behind the word and its flags */
    char **flags;             /* owned: "chown=1:2" */
    char **arguments;         /* owned: as the word's own form has it; NULL: none */
    bool json;                /* the arguments came as a JSON array */
    struct heredoc *heredocs; /* borrowed from the line */
    size_t heredocs_count;
};

/* -EINVAL with docker's words. Finish it either way. */
int instruction_parse(const struct line *line, char escape, struct instruction *ret,
                      struct error *err);
void instruction_finish(struct instruction *instruction);

/* The value of --name=value, "" for a bare --name, NULL: it is not there. */
const char *instruction_flag(const struct instruction *instruction, const char *name);
/* -EINVAL: it has a flag that is not in the list (which ends with NULL), or has one twice. */
int instruction_check_flags(const struct instruction *instruction, const char *const *known,
                            struct error *err);

/* Behind the word and blanks of a text: what a trigger keeps. Points into text. */
const char *instruction_behind_word(const char *text);

#endif
