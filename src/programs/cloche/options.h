/*
 * Command line options from tables: parsing, --help and completion all read the same rows.
 *
 * A command's options live in a struct of its own; each row of its table names the field by offset.
 * The struct starts zeroed, or with the command's defaults.
 */
#ifndef CLOCHE_OPTIONS_H
#define CLOCHE_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <base/error.h>

enum option_kind {
    OPTION_FLAG,   /* bool; --name, or --name=true|false */
    OPTION_TEXT,   /* const char *, points into argv; NULL when not given; the last one counts */
    OPTION_LIST,   /* char **: string list, owned; every one counts, in order */
    OPTION_NUMBER, /* struct option_number, within [minimum, maximum] of the row */
    OPTION_PARSED, /* whatever the row's parse() writes */
};

/* What the words after an option, or a command's operands, stand for: for completion. */
enum complete {
    COMPLETE_NOTHING,
    COMPLETE_FILES,
    COMPLETE_CONTAINERS,         /* all of them */
    COMPLETE_CONTAINERS_RUNNING, /* only those that run */
    COMPLETE_CONTAINERS_STOPPED,
    COMPLETE_IMAGES,
    COMPLETE_NETWORKS,
    COMPLETE_VOLUMES,
    COMPLETE_STICKS,      /* USB sticks */
    COMPLETE_USB_DEVICES, /* any, as VENDOR:PRODUCT */
    COMPLETE_USB_VENDORS, /* of the devices that there are, as the next ones */
    COMPLETE_USB_PRODUCTS,
    COMPLETE_USB_SERIALS,
    COMPLETE_USB_PORTS,
    COMPLETE_USB_POLICY, /* the words of usb policy */
    COMPLETE_OBJECTS,    /* containers and images */
    COMPLETE_COMMANDS,
    COMPLETE_METHODS,     /* of the management socket */
    COMPLETE_METHOD_CALL, /* one, and its parameters */
    COMPLETE_SUBSCRIBE,   /* parameters of events.subscribe */
    COMPLETE_SIGNALS,
    COMPLETE_CHOICES,  /* of the row's choices */
    COMPLETE_EXAMPLES, /* the same, and others are fine too */
};

struct option_number {
    bool set;
    int64_t value;
};

struct option {
    const char *name; /* without dashes; NULL ends a table */
    char short_name;  /* 0: none */
    enum option_kind kind;
    size_t offset;        /* of the field in the command's struct */
    const char *argument; /* for --help: "string", "list", "bytes" ...; NULL for flags */
    const char *help;     /* one sentence without full stop */
    int64_t minimum, maximum;
    /* value points at the field. The message alone: what is wrong with text. */
    int (*parse)(const char *text, void *value, struct error *err);
    enum complete complete;
    const char *const *choices; /* NULL-terminated; refused when not one of them */
    bool hidden; /* an older word for another one: neither helped with nor completed */
};

/* A command's options are one or more tables, each over a part of its struct. */
struct option_group {
    const struct option *options; /* NULL ends a list of groups */
    size_t offset;                /* of the part in the command's struct */
};

/*
 * Parses arguments (NULL-terminated, without the command's own name) into values. Operands, which
 * point into arguments, are collected into *ret_operands (a NULL-terminated array, owned; the
 * strings are not). With stop_at_operand everything from the first operand on is one: those flags
 * belong to the container's command. "--" ends options.
 *
 * On an error the message is docker's ("unknown flag: --x"), the caller adds where to look. What
 * values got until then is released by options_finish() as always. -ECANCELED: --help was asked
 * for, no message.
 */
int options_parse(const struct option_group *groups, char *const *arguments, bool stop_at_operand,
                  void *values, char ***ret_operands, struct error *err);

/* Releases the lists in values. */
void options_finish(const struct option_group *groups, void *values);

/* The row of --name (length bytes) or of -c; NULL when there is none. ret_offset may be NULL. */
const struct option *options_find(const struct option_group *groups, const char *name,
                                  size_t length, size_t *ret_offset);
const struct option *options_find_short(const struct option_group *groups, char name,
                                        size_t *ret_offset);

/* How many letters to change, add, drop or swap to make one word of the other. Words longer than 31
 * are far from everything. */
unsigned word_distance(const char *a, const char *b);

/* Whether the distance is small enough for "did you mean". */
bool word_is_near(const char *typed, const char *known);

#endif
