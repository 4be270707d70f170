/* What the parts of the planner share. */
#ifndef DOCKERFILE_PLANNER_H
#define DOCKERFILE_PLANNER_H

#include <stdbool.h>

#include <base/error.h>
#include <dockerfile/words.h>
#include <schema/build.h>

#include "instruction.h"

/* --- arguments.c: ARG ---------------------------------------------------------------------------
 */

struct argument {
    char *name;  /* owned */
    char *value; /* owned; NULL: declared without one */
};

struct arguments {
    struct argument *items;
    size_t count;
};

void arguments_set(struct arguments *arguments, const char *name, const char *value);
const struct argument *arguments_find(const struct arguments *arguments, const char *name);
void arguments_finish(struct arguments *arguments);

/* --- plan.c: stages -----------------------------------------------------------------------------
 */

struct stage {
    struct build_stage *plan; /* owned by the plan */
    struct oci_image_execution *config;
    struct arguments declared; /* ARG in it */
    bool has_command;          /* a CMD in it */
    size_t first, count;       /* its instructions, FROM left out */
};

struct planner {
    const struct build_options *options;
    struct lines lines;
    struct instruction *instructions;
    size_t instructions_count;
    struct arguments given;  /* --build-arg */
    struct arguments global; /* ARG in front of the first FROM */
    char **used;             /* names of given ones that an ARG declares */
    struct stage *stages;
    size_t stages_count;
    unsigned number; /* of the step that was counted last */
    size_t bytes;    /* of all configurations so far */
    struct build_plan *plan;
};

/* The value that an ARG of this name has: what was given, else the default, else the global one.
 * NULL: none. */
const char *planner_argument(const struct planner *planner, const struct arguments *declared,
                             const char *name);
/* Owned list of NAME=value: what instructions of the stage replace variables by. */
char **planner_environment(const struct planner *planner, const struct stage *stage);
/* Owned lists for RUN, of the arguments that the stage's environment does not hide: what shows in
 * the history, and proxies that do not. */
void planner_run_arguments(const struct planner *planner, const struct stage *stage, char ***shown,
                           char ***hidden);

/* An earlier stage by its name or number: its index, or -1. */
int planner_find_stage(const struct planner *planner, const char *name, size_t before);

struct oci_image_execution *config_copy(const struct oci_image_execution *config);

/* --- step.c: one instruction of a stage ---------------------------------------------------------
 */

/* Applies it to the stage's configuration; *ret is owned. */
int step_make(struct planner *planner, struct stage *stage, const struct instruction *instruction,
              struct build_step **ret, struct error *err);
/* "/bin/sh -c #(nop) TEXT", with the stage's own shell. Owned. */
char *step_comment(const struct stage *stage, const char *format, ...) _printf_(2, 3);

/* --- copy.c: COPY and ADD -----------------------------------------------------------------------
 */

int step_copy(struct planner *planner, struct stage *stage, const struct instruction *instruction,
              const struct words_rules *rules, struct build_step *step, struct error *err);
/* a/./b/../c -> a/c, of an absolute path. Owned. */
char *path_absolute(const char *path);

/* --- values.c -----------------------------------------------------------------------------------
 */

void set_text(char **field, const char *text);
void set_list(char ***field, size_t *count, char **list); /* takes list over; NULL: empty */

/* "80", "80-82/udp": adds "80/tcp" ... to the set. */
int ports_add(struct oci_image_set **set, const char *text, struct error *err);
/* Go's durations, "1m30s"; nanoseconds. */
int duration_parse(const char *text, int64_t *ret, struct error *err);
/* As Go prints them. Owned. */
char *duration_text(int64_t nanoseconds);
int signal_check(const char *text, struct error *err);
/* Go's %q of a list: ["a" "b"]. Owned. */
char *list_quoted(char *const *list);

#endif
