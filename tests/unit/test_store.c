/* Names, records and folders of the store, without a worker. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>
#include <store/build.h>
#include <store/db.h>
#include <store/reference.h>
#include <store/snapshot.h>
#include <store/store.h>

#include "folder.h"
#include "kernel.h"

static void check_reference(const char *text, const char *full, const char *shown)
{
    _cleanup_free_ char *normal = NULL, *short_name = NULL;

    assert_int_equal(store_reference_normalize(text, &normal, NULL), 0);
    assert_string_equal(normal, full);
    short_name = store_reference_shorten(normal);
    assert_string_equal(short_name, shown);
}

static void references_are_read_as_docker_reads_them(void **state)
{
    check_reference("shop", "docker.io/library/shop:latest", "shop:latest");
    check_reference("me/shop:2", "docker.io/me/shop:2", "me/shop:2");
    check_reference("localhost/shop", "localhost/shop:latest", "localhost/shop:latest");
    check_reference("localhost:5000/a/b:t", "localhost:5000/a/b:t", "localhost:5000/a/b:t");
    check_reference("index.docker.io/library/shop", "docker.io/library/shop:latest", "shop:latest");
    check_reference("docker.io/shop", "docker.io/library/shop:latest", "shop:latest");
    check_reference("a.b/c_d/e--f", "a.b/c_d/e--f:latest", "a.b/c_d/e--f:latest");
    check_reference("[::1]:80/x", "[::1]:80/x:latest", "[::1]:80/x:latest");
    check_reference("Host/x", "Host/x:latest", "Host/x:latest");
    check_reference("x:A.b-_9", "docker.io/library/x:A.b-_9", "x:A.b-_9");
}

static void bad_references_are_refused(void **state)
{
    static const char *const bad[] = {
        "",      ":x",      "a:",
        "a//b",  "/a",      "a/",
        "Shop",  "a..b",    "a___b",
        "-a",    "a-",      "a:.x",
        "a b",   "a\n",     "a@sha256:1",
        "a:b:c", "a.b:x/y", "-b.c/x",
        "a@b",   "../x",    "a/../b",
        "a?",    ".a/b",    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct store_reference reference;
        if (store_reference_parse(bad[i], &reference, NULL) != -EINVAL)
            fail_msg("'%s' was taken for a reference", bad[i]);
    }
    char longest[300];
    memset(longest, 'a', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    _cleanup_error_ struct error err = ERROR_INIT;
    struct store_reference reference;
    assert_int_equal(store_reference_parse(longest, &reference, &err), -EINVAL);
}

struct fixture {
    char root[64];
    struct store *store;
};

static int make_fixture(void **state)
{
    struct fixture *fixture = xnew(struct fixture);

    snprintf(fixture->root, sizeof(fixture->root), "/tmp/image-test-store-XXXXXX");
    assert_non_null(mkdtemp(fixture->root));
    *state = fixture;
    return 0;
}

static int remove_fixture(void **state)
{
    struct fixture *fixture = *state;

    store_close(fixture->store);
    assert_int_equal(folder_remove(fixture->root), 0);
    free(fixture);
    return 0;
}

static void records_are_migrated_and_newer_ones_refused(void **state)
{
    struct fixture *fixture = *state;
    static const char *const steps[] = {"CREATE TABLE t(a TEXT)", "INSERT INTO t VALUES('x')"};
    _cleanup_free_ char *path = xasprintf("%s/state.db", fixture->root);
    _cleanup_error_ struct error err = ERROR_INIT;
    struct store_statement *statement;
    struct store_db *db;

    assert_int_equal(store_db_open(path, &db, NULL), 0);
    assert_int_equal(store_db_migrate(db, "test", steps, 1, NULL), 0);
    assert_int_equal(store_db_migrate(db, "test", steps, 2, NULL), 0);
    assert_int_equal(store_db_migrate(db, "test", steps, 2, NULL), 0);
    assert_int_equal(store_db_query(db, &statement, NULL, "SELECT a FROM t", ""), 0);
    assert_int_equal(store_statement_step(statement, NULL), 1);
    assert_string_equal(store_statement_text(statement, 0), "x");
    assert_int_equal(store_statement_step(statement, NULL), 0);
    store_statement_finish(statement);
    assert_int_equal(store_db_migrate(db, "test", steps, 1, &err), -EPROTO);
    assert_true(store_db_run(db, NULL, "PRAGMA user_version = 99", "") >= 0);
    store_db_close(db);
    assert_int_equal(store_db_open(path, &db, &err), -EPROTO);
    assert_non_null(strstr(err.message, "format 99"));
}

static void a_transaction_that_is_not_committed_leaves_nothing(void **state)
{
    struct fixture *fixture = *state;
    _cleanup_free_ char *path = xasprintf("%s/state.db", fixture->root);
    struct store_db *db;

    assert_int_equal(store_db_open(path, &db, NULL), 0);
    assert_int_equal(store_db_run(db, NULL, "CREATE TABLE t(a INTEGER)", ""), 0);
    assert_int_equal(store_db_begin(db, NULL), 0);
    assert_true(store_db_in_transaction(db));
    assert_int_equal(store_db_run(db, NULL, "INSERT INTO t VALUES(?)", "i", (int64_t)5), 1);
    store_db_rollback(db);
    store_db_rollback(db);
    assert_false(store_db_in_transaction(db));
    assert_int_equal(store_db_run(db, NULL, "DELETE FROM t", ""), 0);
    store_db_close(db);
}

static void open_fixture(struct fixture *fixture)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    needs_openat2();
    if (store_open(fixture->root, &fixture->store, &err) < 0)
        fail_msg("%s", error_message(&err));
}

static void the_image_host_is_always_there(void **state)
{
    struct fixture *fixture = *state;
    _cleanup_store_image_ struct store_image *image = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;
    struct store_removed removed = {0};
    struct stat status;

    open_fixture(fixture);
    assert_int_equal(store_image_find(fixture->store, "host", &image, NULL), 0);
    assert_true(image->built_in);
    assert_string_equal(image->base, "host");
    assert_string_equal(image->names[0], "host:latest");
    assert_string_equal(image->config->config->cmd[0], "/bin/sh");
    assert_int_equal(strv_length(image->layers), 1);

    _cleanup_free_ char *shadow =
        xasprintf("%s/layers/%s/etc/shadow", fixture->root, image->layers[0]);
    _cleanup_free_ char *passwd =
        xasprintf("%s/layers/%s/etc/passwd", fixture->root, image->layers[0]);
    assert_int_equal(lstat(shadow, &status), -1);
    assert_int_equal(lstat(passwd, &status), 0);
    assert_int_equal(store_image_remove(fixture->store, "host", STORE_REMOVE_FORCE, &removed, &err),
                     -EPERM);
    assert_int_equal(store_image_tag(fixture->store, "host", "x", NULL, NULL), 0);
    assert_int_equal(store_image_tag(fixture->store, "x", "host", NULL, NULL), -EPERM);
    assert_string_equal(store_host_mounts()[0].target, "/usr");
}

static void opening_again_keeps_the_skeleton(void **state)
{
    struct fixture *fixture = *state;
    _cleanup_store_image_ struct store_image *first = NULL, *second = NULL;
    struct store *other;

    open_fixture(fixture);
    assert_int_equal(store_open(fixture->root, &other, NULL), -EBUSY);
    assert_int_equal(store_image_find(fixture->store, "host", &first, NULL), 0);
    store_close(fixture->store);
    fixture->store = NULL;
    open_fixture(fixture);
    assert_int_equal(store_image_find(fixture->store, "host", &second, NULL), 0);
    assert_string_equal(first->layers[0], second->layers[0]);
    assert_string_equal(first->id, second->id);
}

static void opening_removes_what_no_record_names(void **state)
{
    struct fixture *fixture = *state;
    static const char *const strays[] = {"layers/77", "content/sha256/abc", "containers/ab",
                                         "staging/left", "staging/t-1"};
    struct stat status;

    open_fixture(fixture);
    store_close(fixture->store);
    fixture->store = NULL;
    for (size_t i = 0; i < ARRAY_SIZE(strays); i++) {
        _cleanup_free_ char *path = xasprintf("%s/%s", fixture->root, strays[i]);
        assert_int_equal(mkdir(path, 0700), 0);
    }
    open_fixture(fixture);
    for (size_t i = 0; i < ARRAY_SIZE(strays); i++) {
        _cleanup_free_ char *path = xasprintf("%s/%s", fixture->root, strays[i]);
        if (lstat(path, &status) == 0)
            fail_msg("%s is still there", strays[i]);
    }
}

static void a_snapshot_is_a_detached_writable_root(void **state)
{
    struct fixture *fixture = *state;
    _cleanup_store_image_ struct store_image *image = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;
    _cleanup_close_ int mount_fd = -1, upper_fd = -1;
    uint64_t usage;

    if (geteuid() != 0)
        skip();
    open_fixture(fixture);
    assert_int_equal(store_image_find(fixture->store, "host", &image, NULL), 0);
    assert_int_equal(store_snapshot_prepare(fixture->store, image->id, "../x", NULL, NULL),
                     -EINVAL);
    assert_int_equal(store_snapshot_prepare(fixture->store, image->id, "abc1", NULL, NULL), 0);
    assert_int_equal(store_snapshot_prepare(fixture->store, image->id, "abc1", NULL, NULL),
                     -EEXIST);
    if (store_snapshot_mount(fixture->store, "abc1", false, NULL, &mount_fd, &err) < 0)
        fail_msg("%s", error_message(&err));
    _cleanup_free_ char *passwd = NULL;
    assert_int_equal(file_read_at(mount_fd, "etc/passwd", 1 << 20, &passwd, NULL, NULL), 0);
    assert_int_equal(file_replace_at(mount_fd, "tmp/new", "12345", 5, 0644, NULL), 0);
    close_fd(steal_fd(&mount_fd));
    assert_int_equal(store_snapshot_open_upper(fixture->store, "abc1", &upper_fd, NULL), 0);
    assert_int_equal(faccessat(upper_fd, "tmp/new", F_OK, 0), 0);
    assert_int_equal(store_snapshot_usage(fixture->store, "abc1", &usage, NULL), 0);
    assert_int_equal(usage, 5);
    assert_int_equal(store_snapshot_remove(fixture->store, "abc1", &err), 0);
    assert_int_equal(store_snapshot_remove(fixture->store, "abc1", NULL), 0);
    char **left = NULL;
    assert_int_equal(store_snapshot_list(fixture->store, &left, NULL), 0);
    assert_null(left);
}

/* A volatile mount marks its work folder; the next one must not stumble over the mark. */
static void a_passing_snapshot_is_mounted_again(void **state)
{
    struct fixture *fixture = *state;
    _cleanup_store_image_ struct store_image *image = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;

    if (geteuid() != 0)
        skip();
    open_fixture(fixture);
    assert_int_equal(store_image_find(fixture->store, "host", &image, NULL), 0);
    assert_int_equal(store_snapshot_prepare(fixture->store, image->id, "abc1", NULL, NULL), 0);
    for (int i = 0; i < 2; i++) {
        _cleanup_close_ int mount_fd = -1;
        if (store_snapshot_mount(fixture->store, "abc1", true, NULL, &mount_fd, &err) < 0)
            fail_msg("mount %d: %s", i, error_message(&err));
        assert_int_equal(faccessat(mount_fd, "tmp/new", F_OK, 0), i == 0 ? -1 : 0);
        assert_int_equal(file_replace_at(mount_fd, "tmp/new", "12345", 5, 0644, NULL), 0);
    }
    assert_int_equal(store_snapshot_remove(fixture->store, "abc1", &err), 0);
}

static void unknown_images_are_named(void **state)
{
    struct fixture *fixture = *state;
    _cleanup_error_ struct error err = ERROR_INIT;
    struct store_image *image;

    open_fixture(fixture);
    assert_int_equal(store_image_find(fixture->store, "nothing", &image, &err), -ENOENT);
    assert_string_equal(err.message, "No such image: nothing:latest");
}

/* Also those that only come into use while it is looked at: all names go, or none. */
static void an_image_in_use_keeps_all_its_names(void **state)
{
    struct fixture *fixture = *state;
    const struct oci_image_execution config = {0};
    _cleanup_store_image_ struct store_image *image = NULL;
    _cleanup_store_removed_ struct store_removed removed = {0}, later = {0};
    _cleanup_error_ struct error err = ERROR_INIT;
    _cleanup_free_ char *id = NULL;

    open_fixture(fixture);
    int64_t build = store_build_begin(fixture->store);
    const struct store_step step = {
        .build = build, .os = "linux", .architecture = "amd64", .config = &config};
    if (store_build_step(fixture->store, NULL, &step, &id, &err) < 0)
        fail_msg("%s", error_message(&err));
    assert_int_equal(store_image_tag(fixture->store, id, "x:1", NULL, NULL), 0);
    assert_int_equal(store_image_tag(fixture->store, id, "x:2", NULL, NULL), 0);
    assert_int_equal(store_image_expire(fixture->store, INT64_MAX, true, &removed, &err), 0);
    assert_int_equal(store_image_find(fixture->store, id, &image, NULL), 0);
    assert_int_equal(strv_length(image->names), 2);
    assert_null(removed.untagged);
    store_build_end(fixture->store, build);
    assert_int_equal(store_image_expire(fixture->store, INT64_MAX, false, &later, &err), 0);
    assert_null(later.deleted);
    assert_int_equal(store_image_expire(fixture->store, INT64_MAX, true, &later, &err), 0);
    assert_int_equal(strv_length(later.untagged), 2);
    assert_string_equal(later.deleted[0], id);
}

int main(void)
{
#define with_root(test) cmocka_unit_test_setup_teardown(test, make_fixture, remove_fixture)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(references_are_read_as_docker_reads_them),
        cmocka_unit_test(bad_references_are_refused),
        with_root(records_are_migrated_and_newer_ones_refused),
        with_root(a_transaction_that_is_not_committed_leaves_nothing),
        with_root(the_image_host_is_always_there),
        with_root(opening_again_keeps_the_skeleton),
        with_root(opening_removes_what_no_record_names),
        with_root(a_snapshot_is_a_detached_writable_root),
        with_root(a_passing_snapshot_is_mounted_again),
        with_root(unknown_images_are_named),
        with_root(an_image_in_use_keeps_all_its_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
