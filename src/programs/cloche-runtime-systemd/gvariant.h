/*
 * Values in the GVariant text format (GLib, "GVariant Text Format"), in which the annotations
 * org.systemd.property.* are written: uint64 5, 'text', true, ['a', 'b'], @as [], ('x', byte 1).
 * Dictionaries and maybe types, which no property of a unit has, are refused.
 */
#ifndef CLOCHE_RUNTIME_SYSTEMD_GVARIANT_H
#define CLOCHE_RUNTIME_SYSTEMD_GVARIANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <base/error.h>

enum {
    GVARIANT_TEXT_MAX = 1 << 20, /* bytes of one value */
    GVARIANT_DEPTH_MAX = 16,
    GVARIANT_SIGNATURE_MAX = 255, /* D-Bus specification, "Valid Signatures" */
};

struct gvariant {
    char signature[GVARIANT_SIGNATURE_MAX + 1]; /* D-Bus's: "t", "as", "(ss)", "v" */
    union {
        bool boolean;
        int64_t integer;           /* n i x */
        uint64_t unsigned_integer; /* y q u t */
        double real;
    };
    char *text;              /* owned; s o g */
    struct gvariant **items; /* owned; of an array, a tuple or a variant (one) */
    size_t count;
};

/* Reads one value and nothing after it. *ret is owned by the caller. */
int gvariant_parse(const char *text, struct gvariant **ret, struct error *err);
void gvariant_free(struct gvariant *value);

/* A number of seconds becomes one of microseconds of type uint64. */
int gvariant_to_microseconds(struct gvariant *value, struct error *err);

#endif
