/* How the image worker reads layers: paths, whiteouts, streams that end or lie. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>
#include <zstd.h>

#include <cmocka.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "kernel.h"
#include "load.h"
#include "stream.h"
#include "folder.h"
#include "tar.h"
#include "unpack.h"
#include "whiteout.h"

static void check_path(const char *path, const char *expected)
{
    _cleanup_free_ char *clean = NULL;

    assert_int_equal(tar_clean_path(path, &clean, NULL), 0);
    assert_string_equal(clean, expected);
}

static void paths_are_cleaned_and_stay_inside(void **state)
{
    char *clean = NULL;

    check_path("a/b", "a/b");
    check_path("/a//b/", "a/b");
    check_path("./a/./b/.", "a/b");
    check_path("a/../b", "b");
    check_path("a/b/../../c", "c");
    check_path("./", "");
    check_path("..a/b..", "..a/b..");
    assert_int_equal(tar_clean_path("..", &clean, NULL), -EBADMSG);
    assert_int_equal(tar_clean_path("a/../..", &clean, NULL), -EBADMSG);
    assert_int_equal(tar_clean_path("/../a", &clean, NULL), -EBADMSG);
    char longest[5000];
    memset(longest, 'a', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    assert_int_equal(tar_clean_path(longest, &clean, NULL), -ENAMETOOLONG);
}

/* A layer in memory, written by libarchive. */
struct layer {
    struct archive *archive;
    char data[64 * 1024];
    size_t length;
};

static void layer_begin(struct layer *layer)
{
    layer->archive = archive_write_new();
    archive_write_set_format_pax_restricted(layer->archive);
    archive_write_open_memory(layer->archive, layer->data, sizeof(layer->data), &layer->length);
}

static void layer_add(struct layer *layer, const char *path, mode_t mode)
{
    struct archive_entry *entry = archive_entry_new();

    archive_entry_copy_pathname(entry, path);
    archive_entry_set_mode(entry, mode);
    archive_entry_set_size(entry, S_ISREG(mode) ? 1 : 0);
    archive_entry_set_uid(entry, geteuid());
    archive_entry_set_gid(entry, getegid());
    assert_int_equal(archive_write_header(layer->archive, entry), ARCHIVE_OK);
    if (S_ISREG(mode))
        assert_int_equal(archive_write_data(layer->archive, "x", 1), 1);
    archive_entry_free(entry);
}

static void layer_end(struct layer *layer)
{
    archive_write_close(layer->archive);
    archive_write_free(layer->archive);
}

/* Gives its data in small blocks. */
struct memory_stream {
    struct stream stream;
    const char *data;
    size_t length;
    size_t block;
};

static ssize_t memory_read(struct stream *stream, const void **block, struct error *err)
{
    struct memory_stream *self = (struct memory_stream *)stream;
    size_t length = self->length < self->block ? self->length : self->block;

    *block = self->data;
    self->data += length;
    self->length -= length;
    return (ssize_t)length;
}

static void memory_destroy(struct stream *stream)
{
}

static struct memory_stream memory(const void *data, size_t length, size_t block)
{
    static const struct stream_ops ops = {memory_read, memory_destroy};

    return (struct memory_stream){{&ops}, data, length, block};
}

struct fixture {
    char root[64];
    int fd;
    struct layer layer;
    struct error err;
};

static int make_fixture(void **state)
{
    struct fixture *fixture = xnew(struct fixture);

    umask(0);
    snprintf(fixture->root, sizeof(fixture->root), "/var/tmp/image-test-layer-XXXXXX");
    assert_non_null(mkdtemp(fixture->root));
    fixture->fd = open(fixture->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    layer_begin(&fixture->layer);
    *state = fixture;
    return 0;
}

static int remove_fixture(void **state)
{
    struct fixture *fixture = *state;

    close_fd(fixture->fd);
    error_finish(&fixture->err);
    assert_int_equal(folder_remove(fixture->root), 0);
    free(fixture);
    return 0;
}

/* Unpacks what was added. */
static int unpack_layer(struct fixture *fixture, struct unpack *unpack)
{
    struct memory_stream source;
    struct archive_entry *entry;
    struct tar tar;

    layer_end(&fixture->layer);
    source = memory(fixture->layer.data, fixture->layer.length, 1000);
    unpack_init(unpack, fixture->fd);
    int r = tar_open(&tar, &source.stream, &fixture->err);
    while (r >= 0 && (r = tar_next(&tar, &entry, &fixture->err)) > 0)
        r = unpack_entry(unpack, &tar, entry, &fixture->err);
    tar_close(&tar);
    return r < 0 ? r : unpack_complete(unpack, &fixture->err);
}

static bool is_opaque(const struct fixture *fixture, const char *path)
{
    _cleanup_close_ int fd = openat(fixture->fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return fd >= 0 && whiteout_is_opaque(fd);
}

/* As umoci writes them when a folder became a file, a dangling link or a whiteout. */
static void whiteouts_in_what_is_no_folder_any_more_hide_nothing(void **state)
{
    struct fixture *fixture = *state;
    struct unpack unpack;
    struct stat status;

    if (!kernel_has_openat2())
        skip();
    layer_add(&fixture->layer, "file", S_IFREG | 0644);
    layer_add(&fixture->layer, "file/.wh.a", S_IFREG | 0600);
    layer_add(&fixture->layer, "file/deep/.wh.b", S_IFREG | 0600);
    layer_add(&fixture->layer, ".wh.gone", S_IFREG | 0600);
    layer_add(&fixture->layer, "gone/.wh.c", S_IFREG | 0600);
    assert_int_equal(symlinkat("nowhere", fixture->fd, "link"), 0);
    layer_add(&fixture->layer, "link/.wh.d", S_IFREG | 0600);
    layer_add(&fixture->layer, "last", S_IFREG | 0644);
    if (unpack_layer(fixture, &unpack) < 0)
        fail_msg("%s", error_message(&fixture->err));
    assert_int_equal(fstatat(fixture->fd, "file", &status, 0), 0);
    assert_true(S_ISREG(status.st_mode));
    assert_true(whiteout_is(fixture->fd, "gone"));
    assert_int_equal(faccessat(fixture->fd, "nowhere", F_OK, 0), -1);
    assert_int_equal(faccessat(fixture->fd, "last", F_OK, 0), 0);
    unpack_finish(&unpack);
}

static void whiteouts_become_overlay_marks(void **state)
{
    struct fixture *fixture = *state;
    struct unpack unpack;
    struct stat status;

    if (!kernel_has_openat2())
        skip();
    layer_add(&fixture->layer, "d", S_IFDIR | 0755);
    layer_add(&fixture->layer, "d/.wh..wh..opq", S_IFREG | 0600);
    layer_add(&fixture->layer, "d/kept", S_IFREG | 0644);
    layer_add(&fixture->layer, ".wh.gone", S_IFREG | 0600);
    layer_add(&fixture->layer, ".wh.again", S_IFREG | 0600);
    layer_add(&fixture->layer, "again", S_IFDIR | 0750);
    layer_add(&fixture->layer, "own", S_IFDIR | 0755);
    layer_add(&fixture->layer, ".wh.own", S_IFREG | 0600);
    layer_add(&fixture->layer, ".wh..wh.plnk", S_IFREG | 0600);
    if (unpack_layer(fixture, &unpack) < 0)
        fail_msg("%s", error_message(&fixture->err));
    assert_true(is_opaque(fixture, "d"));
    assert_true(whiteout_is(fixture->fd, "gone"));
    assert_true(is_opaque(fixture, "again"));
    assert_true(is_opaque(fixture, "own"));
    assert_int_equal(fstatat(fixture->fd, "d/kept", &status, 0), 0);
    assert_int_equal(fstatat(fixture->fd, ".wh..wh.plnk", &status, 0), -1);
    assert_int_equal(fstatat(fixture->fd, "again", &status, 0), 0);
    assert_int_equal(status.st_mode & 07777, 0750);
    assert_int_equal(unpack.entries, 9);
    unpack_finish(&unpack);
}

static void folders_without_an_entry_are_reported(void **state)
{
    struct fixture *fixture = *state;
    struct unpack unpack;

    if (!kernel_has_openat2())
        skip();
    layer_add(&fixture->layer, "a/b/file", S_IFREG | 0644);
    layer_add(&fixture->layer, "c/file", S_IFREG | 0644);
    layer_add(&fixture->layer, "c", S_IFDIR | 0700); /* late, but there */
    assert_int_equal(unpack_layer(fixture, &unpack), 0);
    assert_int_equal(unpack.implicit_count, 2);
    assert_true(strv_contains(unpack.implicit, "a"));
    assert_true(strv_contains(unpack.implicit, "a/b"));
    unpack_finish(&unpack);
}

static void a_bad_entry_is_named(void **state)
{
    struct fixture *fixture = *state;
    struct unpack unpack;

    if (!kernel_has_openat2())
        skip();
    layer_add(&fixture->layer, "fine", S_IFREG | 0644);
    layer_add(&fixture->layer, "a/../../out", S_IFREG | 0644);
    assert_int_equal(unpack_layer(fixture, &unpack), -EBADMSG);
    assert_non_null(strstr(fixture->err.message, "entry 2 'a/../../out'"));
    unpack_finish(&unpack);
}

/* Decompresses in small pieces; the number of bytes or -errno. */
static ssize_t decompress(const void *data, size_t length, char *ret, size_t size)
{
    struct memory_stream source = memory(data, length, 7);
    enum compression compression = compression_detect(data, length);
    struct stream *plain = stream_decompress(&source.stream, compression);
    const void *block;
    size_t total = 0;
    ssize_t n;

    while ((n = stream_read(plain, &block, NULL)) > 0) {
        assert_true(total + (size_t)n <= size);
        memcpy(ret + total, block, (size_t)n);
        total += (size_t)n;
    }
    stream_destroy(plain);
    return n < 0 ? n : (ssize_t)total;
}

static size_t gzip(const char *text, unsigned char *out, size_t size)
{
    z_stream stream = {.next_in = (unsigned char *)text,
                       .avail_in = (unsigned)strlen(text),
                       .next_out = out,
                       .avail_out = (unsigned)size};

    deflateInit2(&stream, 9, Z_DEFLATED, 16 + MAX_WBITS, 9, Z_DEFAULT_STRATEGY);
    assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
    deflateEnd(&stream);
    return size - stream.avail_out;
}

static void compressed_data_may_have_several_parts_and_must_end(void **state)
{
    const char *text = "some text that is compressed, compressed, compressed";
    unsigned char packed[512];
    char plain[512];
    size_t first = gzip(text, packed, sizeof(packed));
    size_t both = first + gzip(text, packed + first, sizeof(packed) - first);

    assert_int_equal(decompress(packed, both, plain, sizeof(plain)), 2 * strlen(text));
    memset(packed + both, 0, 20);
    assert_int_equal(decompress(packed, both + 20, plain, sizeof(plain)), 2 * strlen(text));
    for (size_t cut = 3; cut < first; cut++)
        assert_int_equal(decompress(packed, cut, plain, sizeof(plain)), -EBADMSG);
    packed[first / 2] ^= 0x55;
    assert_int_equal(decompress(packed, first, plain, sizeof(plain)), -EBADMSG);

    size_t frame = ZSTD_compress(packed, sizeof(packed), text, strlen(text), 3);
    memcpy(packed + frame, packed, frame);
    assert_int_equal(decompress(packed, 2 * frame, plain, sizeof(plain)), 2 * strlen(text));
    for (size_t cut = 4; cut < frame; cut++)
        assert_int_equal(decompress(packed, cut, plain, sizeof(plain)), -EBADMSG);
}

static void a_checksum_covers_what_went_through(void **state)
{
    struct memory_stream source = memory("abc", 3, 1);
    struct stream *sum = stream_checksum(&source.stream, -1);
    char digest[72];

    assert_int_equal(stream_drain(sum, NULL), 0);
    stream_checksum_digest(sum, digest);
    assert_string_equal(digest,
                        "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_int_equal(stream_checksum_length(sum), 3);
    stream_destroy(sum);
}

enum { LARGE = 9 * 1024 * 1024 };

/* What is summed up in a thread is what the reader got, whether the source keeps its blocks for so
 * long or they are copied. */
static void check_large(struct stream *source, const char *expected)
{
    struct stream *sum = stream_checksum(source, -1);
    char digest[72];

    assert_int_equal(stream_drain(sum, NULL), 0);
    assert_int_equal(stream_checksum_length(sum), LARGE);
    stream_checksum_digest(sum, digest);
    assert_string_equal(digest, expected);
    stream_destroy(sum);
}

static void large_streams_are_summed_up_beside_their_reader(void **state)
{
    _cleanup_free_ char *data = xmalloc(LARGE), *packed = xmalloc(2 * LARGE);
    char expected[72];

    for (size_t i = 0; i < LARGE; i++)
        data[i] = (char)(i * i >> 7);
    digest_of_text(data, LARGE, expected);
    size_t length = ZSTD_compress(packed, 2 * LARGE, data, LARGE, 1);
    assert_false(ZSTD_isError(length));

    struct memory_stream source = memory(data, LARGE, 100000);
    assert_int_equal(source.stream.kept, 0);
    check_large(&source.stream, expected);

    source = memory(packed, length, 100000);
    struct stream *plain = stream_decompress(&source.stream, COMPRESSION_ZSTD);
    assert_true(plain->kept > 0);
    check_large(plain, expected);
    stream_destroy(plain);
}

int main(void)
{
#define with_root(test) cmocka_unit_test_setup_teardown(test, make_fixture, remove_fixture)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_are_cleaned_and_stay_inside),
        with_root(whiteouts_become_overlay_marks),
        with_root(whiteouts_in_what_is_no_folder_any_more_hide_nothing),
        with_root(folders_without_an_entry_are_reported),
        with_root(a_bad_entry_is_named),
        cmocka_unit_test(compressed_data_may_have_several_parts_and_must_end),
        cmocka_unit_test(a_checksum_covers_what_went_through),
        cmocka_unit_test(large_streams_are_summed_up_beside_their_reader),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
