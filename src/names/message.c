#include "message.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum {
    FLAG_RESPONSE = 0x8000,
    FLAG_OPCODE = 0x7800,
    FLAG_TRUNCATED = 0x0200,
    FLAG_RECURSION_DESIRED = 0x0100,
    FLAG_RECURSION_AVAILABLE = 0x0080,
    CODE_MASK = 0x000f,
    CLASS_INTERNET = 1,
    TTL_SECONDS = 600, /* docker's */
    POINTER_TO_QUESTION = 0xc00c,
    RECORD_FIXED =
        12, /* bytes before a record's data: name as a pointer, type, class, TTL, length */
};

static uint16_t read16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static void write16(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static char plain(uint8_t byte)
{
    if (byte >= 'A' && byte <= 'Z')
        return (char)(byte + 'a' - 'A');
    return byte > ' ' && byte < 0x7f && byte != '.' ? (char)byte : '?';
}

/* Returns the offset behind the name, 0 when it is no name. */
static size_t read_name(const uint8_t *data, size_t length, size_t at,
                        char name[static MESSAGE_NAME_MAX + 1])
{
    size_t used = 0;

    for (;;) {
        if (at >= length)
            return 0;
        size_t label = data[at++];
        if (label == 0)
            break;
        if (label > MESSAGE_LABEL_MAX || label > length - at || used + label + 1 > MESSAGE_NAME_MAX)
            return 0;
        if (used > 0)
            name[used++] = '.';
        for (size_t i = 0; i < label; i++)
            name[used++] = plain(data[at + i]);
        at += label;
    }
    name[used] = '\0';
    return at;
}

int message_read_question(const uint8_t *data, size_t length, struct message_question *ret)
{
    size_t at;

    if (length < MESSAGE_HEADER)
        return -EBADMSG;
    if (read16(data + 2) & (FLAG_RESPONSE | FLAG_OPCODE) || read16(data + 4) != 1)
        return -EBADMSG;
    at = read_name(data, length, MESSAGE_HEADER, ret->name);
    if (at == 0 || length - at < 4)
        return -EBADMSG;
    ret->id = read16(data);
    ret->type = read16(data + at);
    ret->internet = read16(data + at + 2) == CLASS_INTERNET;
    ret->end = at + 4;
    return 0;
}

/* --- reverse names ---------------------------------------------------------------------------- */

static bool ends_with(const char *name, const char *end, size_t *ret_length)
{
    size_t length = strlen(name), tail = strlen(end);

    if (length <= tail || strcmp(name + length - tail, end) != 0)
        return false;
    *ret_length = length - tail;
    return true;
}

static bool read_reverse4(const char *name, size_t length, struct in6_addr *ret)
{
    unsigned byte[4];
    char text[16];
    int end = 0;

    if (length >= sizeof(text))
        return false;
    memcpy(text, name, length);
    text[length] = '\0';
    if (sscanf(text, "%3u.%3u.%3u.%3u%n", &byte[3], &byte[2], &byte[1], &byte[0], &end) != 4 ||
        (size_t)end != length)
        return false;
    for (int i = 0; i < 4; i++) {
        if (byte[i] > 255)
            return false;
        ret->s6_addr[i] = (uint8_t)byte[i];
    }
    return true;
}

static int digit(char character)
{
    if (character >= '0' && character <= '9')
        return character - '0';
    return character >= 'a' && character <= 'f' ? character - 'a' + 10 : -1;
}

static bool read_reverse6(const char *name, size_t length, struct in6_addr *ret)
{
    if (length != 63) /* 32 digits with dots between them, the last one first */
        return false;
    for (int i = 0; i < 32; i++) {
        int value = digit(name[2 * i]);

        if (value < 0 || (i < 31 && name[2 * i + 1] != '.'))
            return false;
        ret->s6_addr[15 - i / 2] |= (uint8_t)(i % 2 ? value << 4 : value);
    }
    return true;
}

bool message_read_reverse(const char *name, struct in6_addr *ret, bool *ret_is_ipv6)
{
    size_t length;

    memset(ret, 0, sizeof(*ret));
    if (ends_with(name, ".in-addr.arpa", &length)) {
        *ret_is_ipv6 = false;
        return read_reverse4(name, length, ret);
    }
    *ret_is_ipv6 = true;
    return ends_with(name, ".ip6.arpa", &length) && read_reverse6(name, length, ret);
}

/* --- answers ---------------------------------------------------------------------------------- */

void message_answer_begin(struct message_answer *answer, uint8_t *data, size_t size,
                          const uint8_t *query, const struct message_question *question)
{
    *answer = (struct message_answer){.data = data, .length = question->end, .size = size};
    memcpy(data, query, question->end);
    memset(data + 6, 0, 6); /* no records yet */
}

static uint8_t *add_record(struct message_answer *answer, uint16_t type, size_t size)
{
    uint8_t *at = answer->data + answer->length;

    if (answer->truncated || answer->size - answer->length < RECORD_FIXED + size) {
        answer->truncated = true;
        return NULL;
    }
    write16(at, POINTER_TO_QUESTION);
    write16(at + 2, type);
    write16(at + 4, CLASS_INTERNET);
    write16(at + 6, 0);
    write16(at + 8, TTL_SECONDS);
    write16(at + 10, (uint16_t)size);
    answer->length += RECORD_FIXED + size;
    answer->records++;
    return at + RECORD_FIXED;
}

void message_answer_add_a(struct message_answer *answer, struct in_addr address)
{
    uint8_t *at = add_record(answer, MESSAGE_A, sizeof(address));

    if (at)
        memcpy(at, &address, sizeof(address));
}

void message_answer_add_aaaa(struct message_answer *answer, const struct in6_addr *address)
{
    uint8_t *at = add_record(answer, MESSAGE_AAAA, sizeof(*address));

    if (at)
        memcpy(at, address, sizeof(*address));
}

void message_answer_add_ptr(struct message_answer *answer, const char *name)
{
    uint8_t wire[MESSAGE_NAME_MAX + 1];
    size_t used = 0;

    while (*name) {
        size_t label = strcspn(name, ".");

        if (label == 0 || label > MESSAGE_LABEL_MAX || used + label + 2 > MESSAGE_NAME_MAX)
            return;
        wire[used++] = (uint8_t)label;
        memcpy(wire + used, name, label);
        used += label;
        name += label + (name[label] == '.');
    }
    wire[used++] = 0;
    uint8_t *at = add_record(answer, MESSAGE_PTR, used);
    if (at)
        memcpy(at, wire, used);
}

size_t message_answer_end(struct message_answer *answer, enum message_code code)
{
    uint16_t flags = read16(answer->data + 2) & FLAG_RECURSION_DESIRED;

    flags |= FLAG_RESPONSE | FLAG_RECURSION_AVAILABLE | (uint16_t)code;
    if (answer->truncated)
        flags |= FLAG_TRUNCATED;
    write16(answer->data + 2, flags);
    write16(answer->data + 6, answer->records);
    return answer->length;
}

/* --- from resolvers --------------------------------------------------------------------------- */

bool message_is_response(const uint8_t *data, size_t length, uint16_t *ret_id)
{
    if (length < MESSAGE_HEADER || !(read16(data + 2) & FLAG_RESPONSE))
        return false;
    *ret_id = read16(data);
    return true;
}

bool message_same_question(const uint8_t *query, const struct message_question *question,
                           const uint8_t *response, size_t length)
{
    char asked[MESSAGE_NAME_MAX + 1];
    size_t at;

    if (length < MESSAGE_HEADER)
        return false;
    if (read16(response + 4) == 0) /* some refuse what they do not understand so */
        return (read16(response + 2) & CODE_MASK) != MESSAGE_OK && read16(response + 6) == 0 &&
               read16(response + 8) == 0 && read16(response + 10) == 0;
    if (read16(response + 4) != 1)
        return false;
    at = read_name(response, length, MESSAGE_HEADER, asked);
    return at > 0 && length - at >= 4 && strcmp(asked, question->name) == 0 &&
           memcmp(response + at, query + question->end - 4, 4) == 0;
}
