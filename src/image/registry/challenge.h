/*
 * What a registry wants before it answers: the header WWW-Authenticate (RFC 9110 11.6.1; the
 * distribution specification's token authentication).
 */
#ifndef REGISTRY_CHALLENGE_H
#define REGISTRY_CHALLENGE_H

enum challenge_scheme { CHALLENGE_NONE, CHALLENGE_BASIC, CHALLENGE_BEARER };

struct challenge {
    enum challenge_scheme scheme;
    char *realm;   /* owned; of a bearer challenge: address of the token service */
    char *service; /* owned; NULL: not given */
    char *scope;
};

enum { CHALLENGE_MAX = 16 * 1024 }; /* bytes of the header; a longer one is taken for none */

/* The best of the challenges in the text: Bearer before Basic; others are passed over. What is
 * malformed ends the reading, and what was read before it counts. *ret is empty before. */
void challenge_parse(const char *text, struct challenge *ret);
void challenge_finish(struct challenge *challenge);

#endif
