/* One pass over the archive: documents into memory, layers into staging. */
#include <errno.h>
#include <string.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/text.h>

#include "limits.h"
#include "load.h"
#include "tar.h"
#include "worker.h"

enum {
    SNIFF_LENGTH = 512, /* a tar header */
    USTAR_OFFSET = 257, /* of its magic */
    ALIAS_DEPTH_MAX = 8,
};

static const char blobs_prefix[] = "blobs/sha256/";

/* A name under blobs/sha256/ is a promise. */
static int check_blob_name(const char *path, const char *digest, struct error *err)
{
    if (!text_starts_with(path, blobs_prefix) ||
        text_equal(path + strlen(blobs_prefix), digest + 7))
        return 0;
    return error_set(err, -EBADMSG, "%s: its content has the digest %s", path, digest);
}

/* The first of this name, as with documents. */
static const struct alias *find_alias(const struct load *load, const char *path)
{
    const struct alias *first = NULL;
    size_t cursor = 0, place;

    while (table_next(&load->aliases_places, table_hash_text(path), &cursor, &place)) {
        const struct alias *alias = &load->aliases[place];
        if (text_equal(alias->path, path) && (!first || alias < first))
            first = alias;
    }
    return first;
}

static const char *resolve_alias(const struct load *load, const char *path)
{
    const struct alias *alias;

    for (int depth = 0; depth < ALIAS_DEPTH_MAX && (alias = find_alias(load, path)); depth++)
        path = alias->target;
    return path;
}

const struct document *load_find_document(const struct load *load, const char *path)
{
    size_t cursor = 0, place;

    path = resolve_alias(load, path);
    while (table_next(&load->documents_places, table_hash_text(path), &cursor, &place))
        if (text_equal(load->documents[place].path, path))
            return &load->documents[place];
    return NULL;
}

const struct staged_layer *load_find_layer(const struct load *load, const char *path)
{
    path = resolve_alias(load, path);
    for (size_t i = 0; i < load->layers_count; i++)
        if (text_equal(load->layers[i].path, path))
            return &load->layers[i];
    return NULL;
}

const struct document *load_find_blob_document(const struct load *load, const char *digest)
{
    if (!digest_is_valid(digest))
        return NULL;
    _cleanup_free_ char *path = xasprintf("%s%s", blobs_prefix, digest + 7);
    return load_find_document(load, path);
}

static int count_bytes(struct load *load, size_t bytes, struct error *err)
{
    load->documents_bytes += bytes;
    if (load->documents_bytes > DOCUMENTS_MAX)
        return error_set(err, -EFBIG, "more than %d MiB of documents and names (DOCUMENTS_MAX)",
                         DOCUMENTS_MAX >> 20);
    return 0;
}

static int add_document(struct load *load, const char *path, struct stream *stream,
                        struct error *err)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    const void *block;
    ssize_t n;

    while ((n = stream_read(stream, &block, err)) > 0) {
        if (text.length + (size_t)n > DOCUMENT_MAX)
            return stream_drain(stream, err); /* of no use to us, whatever it is */
        buffer_append(&text, block, (size_t)n);
    }
    int r = n < 0 ? (int)n : count_bytes(load, strlen(path) + text.length, err);
    if (r < 0)
        return r;
    if (load->documents_count % 64 == 0)
        load->documents =
            xrealloc(load->documents, load->documents_count + 64, sizeof(*load->documents));
    struct document *document = &load->documents[load->documents_count];
    document->path = xstrdup(path);
    document->length = text.length;
    document->text = buffer_steal(&text);
    digest_of_text(document->text, document->length, document->digest);
    table_add(&load->documents_places, table_hash_text(path), load->documents_count);
    load->documents_count++;
    return check_blob_name(path, document->digest, err);
}

static bool all_zero(const unsigned char *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (bytes[i])
            return false;
    return true;
}

/* OCI layouts do not say in a blob's name what it is. Tar and compressed data begin with bytes that
 * JSON cannot begin with; the few tars without magic are told by their name. Elsewhere only what is
 * called a tar is one: an archive may be no image at all, and full of compressed files. */
static bool is_layer(const char *path, const void *start, size_t length)
{
    if (!text_starts_with(path, blobs_prefix) && !strstr(path, ".tar"))
        return false;
    if (compression_detect(start, length) != COMPRESSION_NONE)
        return true;
    if (length >= SNIFF_LENGTH &&
        (!memcmp((const char *)start + USTAR_OFFSET, "ustar", 5) || all_zero(start, SNIFF_LENGTH)))
        return true;
    return length && text_ends_with(path, ".tar");
}

static bool is_document(const char *path, const char *start, size_t length)
{
    size_t spaces = 0;

    while (spaces < length && strchr(" \t\r\n", start[spaces]))
        spaces++;
    return (spaces < length && (start[spaces] == '{' || start[spaces] == '[')) ||
           text_ends_with(path, ".json") || text_starts_with(path, blobs_prefix);
}

/* As docker's lines have it, 12 digits: of the digest that archives put into a layer's name. The
 * name as it is may hold anything. */
static char *short_name(const struct load *load, const char *path)
{
    enum { DIGEST_DIGITS = 64, SHORT_DIGITS = 12 };

    for (const char *at = path; *at;) {
        size_t digits = strspn(at, "0123456789abcdef");
        if (digits == DIGEST_DIGITS)
            return xstrndup(at, SHORT_DIGITS);
        at += digits ? digits : 1;
    }
    return xasprintf("layer-%zu", load->layers_count + 1);
}

static int collect_layer(struct load *load, const char *path, struct stream *stream, int64_t size,
                         struct error *err)
{
    _cleanup_free_ char *name = short_name(load, path);
    _cleanup_stream_ struct stream *told =
        stream_told(stream, name, "Loading layer", (uint64_t)size);
    int r = load_layer(load, path, told, err);

    return r < 0 ? r : check_blob_name(path, load->layers[load->layers_count - 1].blob, err);
}

static int collect_file(struct load *load, const char *path, struct tar *tar, struct error *err)
{
    _cleanup_stream_ struct stream *data = tar_entry_stream(tar);
    const void *start;
    size_t length;

    if (load_find_document(load, path) || load_find_layer(load, path))
        return error_set(err, -EBADMSG, "%s: is there twice", path);
    struct stream *whole = stream_peek(data, SNIFF_LENGTH, &start, &length, err);
    if (!whole)
        return err->code;
    int r;
    if (!is_layer(path, start, length)) {
        r = is_document(path, start, length) ? add_document(load, path, whole, err)
                                             : stream_drain(whole, err);
    } else {
        r = collect_layer(load, path, whole, tar->size, err);
    }
    stream_destroy(whole);
    return r;
}

/* target: relative to the root of the archive (hard links) or to the link's folder (symbolic). */
static int add_alias(struct load *load, const char *path, const char *target, bool symbolic,
                     struct error *err)
{
    const char *slash = symbolic && target[0] != '/' ? strrchr(path, '/') : NULL;
    _cleanup_free_ char *joined =
        slash ? xasprintf("%.*s/%s", (int)(slash - path), path, target) : xstrdup(target);
    char *clean = NULL;
    int r = tar_clean_path(joined, &clean, err);

    if (r < 0)
        return error_context(err, "link %s -> %s", path, target), r;
    r = count_bytes(load, strlen(path) + strlen(clean), err);
    if (load->aliases_count % 64 == 0)
        load->aliases = xrealloc(load->aliases, load->aliases_count + 64, sizeof(*load->aliases));
    table_add(&load->aliases_places, table_hash_text(path), load->aliases_count);
    load->aliases[load->aliases_count++] = (struct alias){xstrdup(path), clean};
    return r;
}

static int collect_entry(struct load *load, struct tar *tar, struct archive_entry *entry,
                         struct error *err)
{
    const char *path = tar_path(entry);
    _cleanup_free_ char *clean = NULL;

    if (!path)
        return error_set(err, -EBADMSG, "an entry without a path");
    int r = tar_clean_path(path, &clean, err);
    if (r < 0)
        return error_context(err, "'%.200s'", path), r;
    const char *hard_link = archive_entry_hardlink(entry);
    if (hard_link)
        return add_alias(load, clean, hard_link, false, err);
    if (archive_entry_filetype(entry) == AE_IFLNK && archive_entry_symlink(entry))
        return add_alias(load, clean, archive_entry_symlink(entry), true, err);
    if (archive_entry_filetype(entry) == AE_IFREG)
        return collect_file(load, clean, tar, err);
    return 0;
}

static int collect_entries(struct load *load, struct tar *tar, struct error *err)
{
    struct archive_entry *entry;
    size_t entries = 0;
    int r;

    while ((r = tar_next(tar, &entry, err)) > 0) {
        if (++entries > ARCHIVE_ENTRIES_MAX)
            return error_set(err, -EFBIG, "more than %d entries (ARCHIVE_ENTRIES_MAX)",
                             ARCHIVE_ENTRIES_MAX);
        r = collect_entry(load, tar, entry, err);
        if (r < 0)
            return r;
    }
    if (r == 0 && entries == 0)
        return error_set(err, -EBADMSG, "it is empty");
    return r;
}

/* The archive as plain tar, whatever it is compressed with. */
static int collect_plain(struct load *load, struct stream *stream, struct error *err)
{
    struct tar tar;
    int r = tar_open_any(&tar, stream, err);

    if (r < 0)
        return r;
    tar_require_end(&tar);
    r = collect_entries(load, &tar, err);
    tar_close(&tar);
    /* To the end of the source: its checksum is there, and a pipe's writer wants to finish. */
    return r < 0 ? r : stream_drain(stream, err);
}

int load_collect(struct load *load, int archive_fd, struct error *err)
{
    _cleanup_stream_ struct stream *file = stream_from_fd(archive_fd);
    const void *start;
    size_t length;
    struct stream *whole = stream_peek(file, SNIFF_LENGTH, &start, &length, err);

    if (!whole)
        return err->code;
    enum compression compression = compression_detect(start, length);
    int r;
    if (length == 0) {
        r = error_set(err, -EBADMSG, "it is empty");
    } else if (compression == COMPRESSION_NONE) {
        r = collect_plain(load, whole, err);
    } else {
        struct stream *plain = stream_decompress(whole, compression);
        r = collect_plain(load, plain, err);
        stream_destroy(plain);
    }
    stream_destroy(whole);
    return r;
}
