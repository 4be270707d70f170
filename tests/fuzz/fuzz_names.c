/*
 * DNS messages of containers and resolvers: whatever comes, the question is read or refused, and an
 * answer made of it is a message that can be read again.
 */
#include <stdlib.h>
#include <string.h>

#include "message.h"

static void answer(const uint8_t *query, const struct message_question *question, size_t size)
{
    static const struct in6_addr address6 = IN6ADDR_LOOPBACK_INIT;
    uint8_t *data = malloc(size); /* of exactly this size, so that one byte more is seen */
    struct message_answer made;

    message_answer_begin(&made, data, size, query, question);
    for (int i = 0; i < 40; i++) {
        message_answer_add_a(&made, (struct in_addr){0x01020304});
        message_answer_add_aaaa(&made, &address6);
        message_answer_add_ptr(&made, question->name);
    }
    size_t length = message_answer_end(&made, MESSAGE_OK);
    uint16_t id;
    if (length > size || !message_is_response(data, length, &id) || id != question->id ||
        !message_same_question(query, question, data, length))
        abort();
    free(data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct message_question question;
    struct in6_addr address;
    uint16_t id;
    bool ipv6;

    (void)message_is_response(data, size, &id);
    if (message_read_question(data, size, &question) < 0)
        return 0;
    (void)message_read_reverse(question.name, &address, &ipv6);
    (void)message_same_question(data, &question, data, size);
    answer(data, &question, question.end);
    answer(data, &question, MESSAGE_UDP_MAX);
    answer(data, &question, 4096);
    return 0;
}
