/*
 * --usb-storage and --usb-block: PATH[:ro|:rw][:OPTION,...]
 */
#include <errno.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

#include "spec.h"

enum { UNIT_MAX = 15 };

static int take_number(const char *key, const char *text, uint64_t *ret, bool *ret_has,
                       struct error *err)
{
    if (text_to_size(text, ret) < 0 || *ret == 0)
        return error_set(err, -EINVAL, "invalid value for %s: %s", key, text);
    *ret_has = true;
    return 0;
}

static int take_operations(struct api_usb_storage *storage, const char *text, struct error *err)
{
    uint64_t number;

    if (text_to_u64(text, 1, UINT32_MAX, &number) < 0)
        return error_set(err, -EINVAL, "invalid value for iops: %s", text);
    storage->operations_per_second = (uint32_t)number;
    storage->has_operations_per_second = true;
    return 0;
}

static int take_word(struct api_usb_storage *storage, char *word, struct error *err)
{
    char *value = strchr(word, '=');

    if (text_equal(word, "ro") || text_equal(word, "rw")) {
        storage->read_only = text_equal(word, "ro");
        storage->has_read_only = true;
        return 0;
    }
    if (text_equal(word, "exec") || text_equal(word, "noexec")) {
        storage->exec = text_equal(word, "exec");
        storage->has_exec = true;
        return 0;
    }
    if (text_equal(word, "discard") || text_equal(word, "nodiscard")) {
        storage->discard = text_equal(word, "discard");
        storage->has_discard = true;
        return 0;
    }
    if (!value)
        return error_set(err, -EINVAL, "unknown option '%s'", word);
    *value++ = '\0';
    char **text = text_equal(word, "usb")     ? &storage->device
                  : text_equal(word, "label") ? &storage->label
                  : text_equal(word, "port")  ? &storage->port
                                              : NULL;
    if (text) {
        free(*text);
        *text = xstrdup(value);
        return 0;
    }
    if (text_equal(word, "size"))
        return take_number(word, value, &storage->size_limit, &storage->has_size_limit, err);
    if (text_equal(word, "bps"))
        return take_number(word, value, &storage->bytes_per_second, &storage->has_bytes_per_second,
                           err);
    if (text_equal(word, "iops"))
        return take_operations(storage, value, err);
    return error_set(err, -EINVAL, "unknown option '%s'", word);
}

/* The path, and the words behind it. Owned. */
static char **split(const char *text, char **ret_path)
{
    size_t path = strcspn(text, ":");
    _cleanup_free_ char *rest = xstrdup(text[path] ? text + path + 1 : "");

    *ret_path = xstrndup(text, path);
    if ((text_starts_with(rest, "ro:") || text_starts_with(rest, "rw:")))
        rest[2] = ',';
    return strv_split(rest, ',');
}

int spec_add_usb_storage(struct api_container_spec *spec, const char *text, struct error *err)
{
    _cleanup_api_usb_storage_ struct api_usb_storage *storage = xnew(struct api_usb_storage);
    _cleanup_strv_ char **words = split(text, &storage->target);
    int r = 0;

    for (size_t i = 0; r == 0 && words && words[i]; i++)
        r = take_word(storage, words[i], err);
    if (r == 0 && text[0] != '/')
        r = error_set(err, -EINVAL, "the path in the container must be absolute");
    if (r < 0) {
        error_context(err, "invalid argument \"%s\" for \"--usb-storage\" flag", text);
        return r;
    }
    spec->usb_storage =
        xrealloc(spec->usb_storage, spec->usb_storage_count + 1, sizeof(struct api_usb_storage *));
    spec->usb_storage[spec->usb_storage_count++] = steal_ptr(storage);
    return 0;
}

static int take_block_word(struct api_usb_block *block, char *word, struct error *err)
{
    char *value = strchr(word, '=');
    uint64_t number;

    if (text_equal(word, "ro") || text_equal(word, "rw")) {
        block->read_only = text_equal(word, "ro");
        block->has_read_only = true;
        return 0;
    }
    if (!value)
        return error_set(err, -EINVAL, "unknown option '%s'", word);
    *value++ = '\0';
    char **text = text_equal(word, "usb")    ? &block->device
                  : text_equal(word, "port") ? &block->port
                  : text_equal(word, "via")  ? &block->via
                                             : NULL;
    if (text) {
        free(*text);
        *text = xstrdup(value);
        return 0;
    }
    if (!text_equal(word, "unit"))
        return error_set(err, -EINVAL, "unknown option '%s'", word);
    if (text_to_u64(value, 0, UNIT_MAX, &number) < 0)
        return error_set(err, -EINVAL, "invalid value for unit: %s", value);
    block->unit = (uint32_t)number;
    block->has_unit = true;
    return 0;
}

int spec_add_usb_block(struct api_container_spec *spec, const char *text, struct error *err)
{
    _cleanup_api_usb_block_ struct api_usb_block *block = xnew(struct api_usb_block);
    _cleanup_strv_ char **words = split(text, &block->target);
    int r = 0;

    for (size_t i = 0; r == 0 && words && words[i]; i++)
        r = take_block_word(block, words[i], err);
    if (r == 0 && text[0] != '/')
        r = error_set(err, -EINVAL, "the path in the container must be absolute");
    if (r == 0 && block->via && !text_equal(block->via, "nbd") && !text_equal(block->via, "cuse") &&
        !text_equal(block->via, "ring"))
        r = error_set(err, -EINVAL, "via is nbd, cuse or ring, not '%s'", block->via);
    if (r < 0) {
        error_context(err, "invalid argument \"%s\" for \"--usb-block\" flag", text);
        return r;
    }
    spec->usb_blocks =
        xrealloc(spec->usb_blocks, spec->usb_blocks_count + 1, sizeof(struct api_usb_block *));
    spec->usb_blocks[spec->usb_blocks_count++] = steal_ptr(block);
    return 0;
}
