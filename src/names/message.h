/*
 * DNS messages (RFC 1035), as far as a name server for containers needs them: the question of a
 * query, and an answer made of it. Everything that comes in is foreign: each length is checked
 * against what is there. Pure functions.
 */
#ifndef NAMES_MESSAGE_H
#define NAMES_MESSAGE_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MESSAGE_HEADER = 12,   /* bytes */
    MESSAGE_MAX = 65535,   /* over TCP */
    MESSAGE_UDP_MAX = 512, /* without EDNS */
    MESSAGE_NAME_MAX = 255,
    MESSAGE_LABEL_MAX = 63,
};

enum message_type {
    MESSAGE_A = 1,
    MESSAGE_PTR = 12,
    MESSAGE_AAAA = 28,
    MESSAGE_ANY = 255,
};

enum message_code {
    MESSAGE_OK = 0,
    MESSAGE_FORMAT_ERROR = 1,
    MESSAGE_SERVER_FAILURE = 2,
    MESSAGE_NO_SUCH_NAME = 3,
    MESSAGE_REFUSED = 5,
};

struct message_question {
    uint16_t id;
    uint16_t type;
    bool internet;                   /* class IN; others are nobody's here */
    char name[MESSAGE_NAME_MAX + 1]; /* lower case, labels by dots, without the last one */
    size_t end;                      /* of the question in the message: where records begin */
};

/* The one question of a query. -EBADMSG: it is none, or has more than one question. Compressed
 * names are refused: a question has nothing before it to point at. Bytes in labels that a name of
 * ours never has (dots, control characters, what is not ASCII) become '?'. */
int message_read_question(const uint8_t *data, size_t length, struct message_question *ret);

/* "5.0.30.172.in-addr.arpa" or "....ip6.arpa" -> address. False: it is no such name. */
bool message_read_reverse(const char *name, struct in6_addr *ret, bool *ret_is_ipv6);

/* An answer under construction, in a buffer of the caller's. What does not fit is left out, and the
 * message says so (TC). */
struct message_answer {
    uint8_t *data;
    size_t length, size;
    uint16_t records;
    bool truncated;
};

/* Begins with the query's header and question. size: at most MESSAGE_MAX, at least that of the
 * question. */
void message_answer_begin(struct message_answer *answer, uint8_t *data, size_t size,
                          const uint8_t *query, const struct message_question *question);
void message_answer_add_a(struct message_answer *answer, struct in_addr address);
void message_answer_add_aaaa(struct message_answer *answer, const struct in6_addr *address);
/* name: labels by dots. */
void message_answer_add_ptr(struct message_answer *answer, const char *name);
/* The length of the message. */
size_t message_answer_end(struct message_answer *answer, enum message_code code);

/* The id, and whether it is a response, of what came from a resolver; false: too short. */
bool message_is_response(const uint8_t *data, size_t length, uint16_t *ret_id);
/* Whether the response repeats the question of this query (against forged answers). */
bool message_same_question(const uint8_t *query, const struct message_question *question,
                           const uint8_t *response, size_t length);

#endif
