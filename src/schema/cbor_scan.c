#include <string.h>

#include <schema/cbor.h>

static bool wrong(struct cbor_scan *scan, const char *problem)
{
    scan->problem = problem;
    return false;
}

static bool read_argument(struct cbor_scan *scan, struct cbor_item *item)
{
    size_t size = (size_t)1 << (item->info - 24);
    uint64_t value = 0;

    if ((size_t)(scan->end - scan->at) < size)
        return wrong(scan, "the data ends in the middle");
    for (size_t i = 0; i < size; i++)
        value = value << 8 | scan->at[i];
    scan->at += size;
    item->value = value;
    return true;
}

bool cbor_scan_head(struct cbor_scan *scan, struct cbor_item *ret)
{
    do {
        if (scan->at == scan->end)
            return wrong(scan, "the data ends in the middle");
        unsigned char first = *scan->at++;
        *ret = (struct cbor_item){.major = first >> 5, .info = first & 0x1f, .value = first & 0x1f};
        if (ret->info >= 24 && ret->info < 28 && !read_argument(scan, ret))
            return false;
        if (ret->info >= 28 &&
            (ret->info < 31 || ret->major < CBOR_BYTES || ret->major == CBOR_TAG))
            return wrong(scan, "a reserved length");
        if (ret->major == CBOR_SIMPLE && ret->info == 24 && ret->value < 32)
            return wrong(scan, "a reserved simple value");
    } while (ret->major == CBOR_TAG);
    return true;
}

bool cbor_scan_text(struct cbor_scan *scan, const char **ret, size_t *ret_length)
{
    struct cbor_item item;

    if (!cbor_scan_head(scan, &item))
        return false;
    if (item.major != CBOR_TEXT || item.info == 31)
        return wrong(scan, "a text is expected");
    if (item.value > (size_t)(scan->end - scan->at))
        return wrong(scan, "the data ends in the middle");
    *ret = (const char *)scan->at;
    *ret_length = (size_t)item.value;
    scan->at += item.value;
    return true;
}

static bool skip_chunks(struct cbor_scan *scan, enum cbor_major major)
{
    struct cbor_item chunk;

    for (;;) {
        if (!cbor_scan_head(scan, &chunk))
            return false;
        if (chunk.major == CBOR_SIMPLE && chunk.info == 31)
            return true;
        if (chunk.major != major || chunk.info == 31)
            return wrong(scan, "a piece of another kind in a string");
        if (chunk.value > (size_t)(scan->end - scan->at))
            return wrong(scan, "the data ends in the middle");
        scan->at += chunk.value;
    }
}

static bool skip_members(struct cbor_scan *scan, const struct cbor_item *item, unsigned depth)
{
    bool is_map = item->major == CBOR_MAP;

    if (depth == 0)
        return wrong(scan, "nested too deep");
    for (uint64_t i = 0; item->info == 31 || i < item->value; i++) {
        if (item->info == 31 && scan->at < scan->end && *scan->at == CBOR_BREAK) {
            scan->at++;
            return true;
        }
        if ((is_map && !cbor_scan_skip(scan, depth - 1)) || !cbor_scan_skip(scan, depth - 1))
            return false;
    }
    return true;
}

bool cbor_scan_skip(struct cbor_scan *scan, unsigned depth)
{
    struct cbor_item item;

    if (!cbor_scan_head(scan, &item))
        return false;
    switch (item.major) {
    case CBOR_BYTES:
    case CBOR_TEXT:
        if (item.info == 31)
            return skip_chunks(scan, item.major);
        if (item.value > (size_t)(scan->end - scan->at))
            return wrong(scan, "the data ends in the middle");
        scan->at += item.value;
        return true;
    case CBOR_ARRAY:
    case CBOR_MAP:
        return skip_members(scan, &item, depth);
    default:
        return item.major != CBOR_SIMPLE || item.info != 31 || wrong(scan, "a break without begin");
    }
}

void cbor_append_head(struct buffer *out, enum cbor_major major, uint64_t value)
{
    unsigned char head[9];
    size_t size = value < 24            ? 0
                  : value <= UINT8_MAX  ? 1
                  : value <= UINT16_MAX ? 2
                  : value <= UINT32_MAX ? 4
                                        : 8;

    static const unsigned char infos[] = {[1] = 24, [2] = 25, [4] = 26, [8] = 27};
    head[0] = (unsigned char)(major << 5 | (size ? infos[size] : value));
    for (size_t i = size; i > 0; i--, value >>= 8)
        head[i] = (unsigned char)value;
    buffer_append(out, head, size + 1);
}

void cbor_append_text(struct buffer *out, const char *text, size_t length)
{
    cbor_append_head(out, CBOR_TEXT, length);
    buffer_append(out, text, length);
}
