/*
 * SHA-1 (RFC 3174), which the handshake of a WebSocket is made with, and nothing that has to be
 * safe.
 */
#ifndef DOOR_DOCKER_SHA1_H
#define DOOR_DOCKER_SHA1_H

#include <stddef.h>

enum { SHA1_LENGTH = 20, SHA1_INPUT_MAX = 119 /* bytes: two blocks with what ends them */ };

/* length: at most SHA1_INPUT_MAX. */
void sha1(const char *data, size_t length, unsigned char ret[SHA1_LENGTH]);

#endif
