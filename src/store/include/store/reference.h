/*
 * Image references as docker reads and shows them: [domain/]path[:tag][@digest].
 *
 *     shop                    docker.io/library/shop:latest      shown shop:latest
 *     me/shop:2               docker.io/me/shop:2                shown me/shop:2
 *     localhost:5000/shop     localhost:5000/shop:latest         shown localhost:5000/shop:latest
 *
 * Grammar and normalisation: distribution's reference package (a first component is a domain when
 * it holds a dot or a colon or is "localhost"; "index.docker.io" is docker.io).
 */
#ifndef STORE_REFERENCE_H
#define STORE_REFERENCE_H

#include <stdbool.h>

#include <base/error.h>

enum {
    REFERENCE_NAME_MAX = 255, /* domain/path */
    REFERENCE_TAG_MAX = 128,
};

struct store_reference {
    char *domain; /* docker.io */
    char *path;   /* library/shop */
    char *tag;    /* NULL when there was none */
    char *digest; /* "sha256:HEX" or NULL */
};

/* -EINVAL with docker's words ("invalid reference format", "repository name must be
 * lowercase"). Neither tag nor digest is made up here. A bare 64-digit hex string is refused as a
 * name, as docker does. */
int store_reference_parse(const char *text, struct store_reference *ret, struct error *err);
void store_reference_finish(struct store_reference *reference);
#define _cleanup_store_reference_ _cleanup_(store_reference_finish)

/* Sets tag to "latest" when there is neither tag nor digest. */
void store_reference_default_tag(struct store_reference *reference);

/* Owned texts: docker.io/library/shop:latest, and shop:latest. */
char *store_reference_full(const struct store_reference *reference);
char *store_reference_short(const struct store_reference *reference);

/* Full text in, short text out: docker.io/library/shop:latest -> shop:latest. Text that is no
 * reference is copied. Owned by the caller. */
char *store_reference_shorten(const char *full);

/* Parses, adds the default tag and returns the full text: how names are stored. */
int store_reference_normalize(const char *text, char **ret, struct error *err);

#endif
