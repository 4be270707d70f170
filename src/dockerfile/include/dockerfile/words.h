/*
 * Variables, quotes and escapes of a Dockerfile's words: docker's rules, not a shell's.
 *
 * $name, ${name}, ${name:-word}, ${name:+word}, ${name:?word} (also without the colon),
 * ${name#pattern}, ##, %, %%, ${name/pattern/word}, //. What is not set is empty. 'single' quotes
 * keep everything, "double" ones replace variables, the escape character keeps the next one.
 */
#ifndef DOCKERFILE_WORDS_H
#define DOCKERFILE_WORDS_H

#include <stdbool.h>

#include <base/error.h>

struct words_rules {
    char *const *env; /* NAME=value; the first of a name counts; NULL: none */
    char escape;      /* '\\' or '`' */
    bool raw;         /* quotes and escapes stay, variables are left alone: only to split */
    size_t *total;    /* bytes of the words so far, at most DOCKERFILE_CONFIG_MAX; NULL: any */
};

/* One word: blanks in it stay. *ret is owned. -EINVAL with a message, -EFBIG. */
int words_expand(const char *text, const struct words_rules *rules, char **ret, struct error *err);

/* The content of a heredoc: quotes are nothing special, an escape only in front of '$' or another.
 */
int words_expand_content(const char *text, const struct words_rules *rules, char **ret,
                         struct error *err);

/* The words that text falls into where blanks are unquoted, also those that a variable brings. *ret
 * is an owned list. */
int words_split(const char *text, const struct words_rules *rules, char ***ret, struct error *err);

/* The value of a NAME in a list of NAME=value, or NULL. */
const char *words_variable(char *const *env, const char *name);

#endif
