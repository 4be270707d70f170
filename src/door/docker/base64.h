/*
 * Base64 (RFC 4648), in which docker's headers have documents.
 */
#ifndef DOOR_DOCKER_BASE64_H
#define DOOR_DOCKER_BASE64_H

#include <stddef.h>

/* The standard's alphabet. Owned by the caller. */
char *base64_encode(const char *data, size_t length);
/* Of that alphabet or that of URLs, with or without what fills it up. Owned by the caller, with a
 * NUL behind it; NULL: it is none. */
char *base64_decode(const char *text, size_t *ret_length);

#endif
