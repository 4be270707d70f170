#include "head.h"

#include <string.h>
#include <strings.h>

#include <base/alloc.h>
#include <base/text.h>

/* ---- where it ends ---- */

static size_t skip_empty_lines(const char *text, size_t length)
{
    size_t at = 0;

    while (length - at >= 2 && text[at] == '\r' && text[at + 1] == '\n')
        at += 2;
    return at;
}

size_t head_length(const char *text, size_t length)
{
    size_t at = skip_empty_lines(text, length);
    const char *end = memmem(text + at, length - at, "\r\n\r\n", 4);

    return end ? (size_t)(end - text) + 4 : 0;
}

/* ---- words ---- */

/* RFC 9110, 5.6.2 */
static bool is_token(const char *text, size_t length)
{
    static const char marks[] = "!#$%&'*+-.^_`|~";

    for (size_t i = 0; i < length; i++) {
        char c = text[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!letter && (!c || !strchr(marks, c)))
            return false;
    }
    return length > 0;
}

static bool is_visible(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)text[i] <= ' ' || text[i] == 0x7f)
            return false;
    return length > 0;
}

/* What may stand in a value: no control character but the tab. */
static bool is_value(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (((unsigned char)text[i] < ' ' && text[i] != '\t') || text[i] == 0x7f)
            return false;
    return true;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* Whether a list (RFC 9110, 5.6.1) has the word, without case. */
static bool list_has(const char *list, const char *word)
{
    size_t length = strlen(word);

    for (const char *at = list; at && *at;) {
        at += strspn(at, " \t,");
        size_t item = strcspn(at, ",");
        size_t bare = item;
        while (bare && is_blank(at[bare - 1]))
            bare--;
        if (bare == length && strncasecmp(at, word, length) == 0)
            return true;
        at += item;
    }
    return false;
}

/* ---- the first line ---- */

static unsigned parse_request_line(const char *line, size_t length, struct head *head,
                                   const char **problem)
{
    const char *space = memchr(line, ' ', length);
    const char *version = space ? memrchr(line, ' ', length) : NULL;

    *problem = "the request line makes no sense";
    if (!space || version == space)
        return 400;
    size_t method = (size_t)(space - line), target = (size_t)(version - space) - 1;
    if (method >= HEAD_METHOD_MAX || !is_token(line, method) || !is_visible(space + 1, target) ||
        space[1] != '/')
        return 400;
    size_t rest = length - (size_t)(version + 1 - line);
    if (rest != 8 || memcmp(version + 1, "HTTP/1.", 7) != 0 ||
        (version[8] != '0' && version[8] != '1')) {
        *problem = "only HTTP/1.1 is known here";
        return rest == 8 && memcmp(version + 1, "HTTP/", 5) == 0 ? 505 : 400;
    }
    memcpy(head->method, line, method);
    head->target = xstrndup(space + 1, target);
    head->old = version[8] == '0';
    return 0;
}

/* ---- headers ---- */

static unsigned parse_field(const char *line, size_t length, struct head *head,
                            const char **problem)
{
    const char *colon = memchr(line, ':', length);

    /* A blank before the colon, or a line that goes on with one, is what smugglers use (RFC 9112,
     * 5.1 and 5.2). */
    *problem = "a header makes no sense";
    if (!colon || !is_token(line, (size_t)(colon - line)))
        return 400;
    const char *value = colon + 1, *end = line + length;
    while (value < end && is_blank(*value))
        value++;
    while (end > value && is_blank(end[-1]))
        end--;
    if (!is_value(value, (size_t)(end - value)))
        return 400;
    strv_take(&head->names, xstrndup(line, (size_t)(colon - line)));
    strv_take(&head->values, xstrndup(value, (size_t)(end - value)));
    return 0;
}

static size_t count_fields(const struct head *head, const char *name)
{
    size_t count = 0;

    for (size_t i = 0; head->names && head->names[i]; i++)
        count += strcasecmp(head->names[i], name) == 0;
    return count;
}

const char *head_field(const struct head *head, const char *name)
{
    for (size_t i = 0; head->names && head->names[i]; i++)
        if (strcasecmp(head->names[i], name) == 0)
            return head->values[i];
    return NULL;
}

/* A list may be said in several headers (RFC 9110, 5.3). */
static bool fields_have(const struct head *head, const char *name, const char *word)
{
    for (size_t i = 0; head->names && head->names[i]; i++)
        if (strcasecmp(head->names[i], name) == 0 && list_has(head->values[i], word))
            return true;
    return false;
}

/* How long the body is, as RFC 9112, 6.3 has it. Nothing may be said twice, but that docker-py says
 * a length beside the chunks, which counts for nothing then; there is no other request behind one.
 */
static unsigned find_length(struct head *head, const char **problem)
{
    const char *coding = head_field(head, "Transfer-Encoding");
    const char *length = head_field(head, "Content-Length");
    uint64_t value;

    head->length = HEAD_NO_LENGTH;
    *problem = "the length of the body is said in two ways";
    if (count_fields(head, "Transfer-Encoding") > 1 || count_fields(head, "Content-Length") > 1)
        return 400;
    if (coding) {
        *problem = "only the transfer coding `chunked` is known here";
        if (head->old || strcasecmp(coding, "chunked") != 0)
            return head->old ? 400 : 501;
        head->chunked = true;
    } else if (length) {
        *problem = "the length of the body is no number";
        if (strspn(length, "0123456789") != strlen(length) ||
            text_to_u64(length, 0, INT64_MAX, &value) < 0)
            return 400;
        head->length = (int64_t)value;
    }
    return 0;
}

static unsigned look_at_fields(struct head *head, const char **problem)
{
    const char *expect = head_field(head, "Expect");

    unsigned status = find_length(head, problem);
    if (status)
        return status;
    *problem = "there must be one Host header";
    if (count_fields(head, "Host") > 1 || (!head->old && !head_field(head, "Host")))
        return 400;
    *problem = "what is expected cannot be done";
    if (expect && strcasecmp(expect, "100-continue") != 0)
        return 417;
    head->expects = expect && !head->old;
    head->keep = !head->old && !fields_have(head, "Connection", "close") &&
                 !(head->chunked && head_field(head, "Content-Length"));
    head->upgrade = fields_have(head, "Connection", "upgrade") && head_field(head, "Upgrade");
    return 0;
}

unsigned head_parse(const char *text, size_t length, struct head *ret, const char **ret_problem)
{
    size_t at = skip_empty_lines(text, length), fields = 0;
    struct head head = {.length = HEAD_NO_LENGTH};
    unsigned status = 400;

    *ret_problem = "the request makes no sense";
    for (bool first = true; at < length; first = false) {
        const char *end = memmem(text + at, length - at, "\r\n", 2);
        size_t line = end ? (size_t)(end - (text + at)) : length - at;
        if (!line || !end)
            break;
        *ret_problem = "there are too many headers";
        status = first ? parse_request_line(text + at, line, &head, ret_problem)
                 : fields++ >= HEAD_FIELDS_MAX ? 431
                                               : parse_field(text + at, line, &head, ret_problem);
        if (status)
            break;
        at += line + 2;
    }
    if (!status)
        status = head.target ? look_at_fields(&head, ret_problem) : 400;
    if (status) {
        head_finish(&head);
        return status;
    }
    *ret = head;
    return 0;
}

void head_finish(struct head *head)
{
    free(head->target);
    strv_free(head->names);
    strv_free(head->values);
    *head = (struct head){0};
}
