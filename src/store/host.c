/*
 * The image `host`: the machine's own /usr, bound read-only by the engine over a skeleton that is
 * generated here: empty mount points, the links of a merged /usr, and from /etc only what is listed
 * below. Nothing secret, no homes, no state that changes while containers run.
 *
 * The skeleton is a layer like others (key "host:FINGERPRINT"). When the listed files changed since
 * it was made, the next opening of the store makes another; containers keep the one they have.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/clock.h>
#include <base/file.h>
#include <base/text.h>
#include <store/staging.h>

#include "internal.h"

enum {
    HOST_FORMAT = 1,                  /* of the skeleton: raise it when what is made changes */
    HOST_FILE_MAX = 16 * 1024 * 1024, /* bytes of one copied file */
    HOST_DEPTH_MAX = 16,              /* folders below a listed one */
};

/* Files, links and folders of /etc that programs of /usr need to run. */
static const char *const etc_names[] = {
    "nsswitch.conf",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "ld-musl-x86_64.path",
    "alternatives",
    "ssl/certs",
    "ssl/openssl.cnf",
    "ca-certificates.conf",
    "pki/tls/certs",
    "fonts",
    "localtime",
    "timezone",
    "mime.types",
    "services",
    "protocols",
    "rpc",
    "networks",
    "host.conf",
    "gai.conf",
    "os-release",
    "debian_version",
    "magic",
    "magic.mime",
    "terminfo",
    "profile",
    "profile.d",
    "bash.bashrc",
    "inputrc",
    "locale.conf",
    "locale.alias",
    "default/locale",
    "shells",
    "login.defs",
    "X11/fonts",
    "X11/xkb",
    "gtk-3.0",
    "xdg",
    "chromium",
    "chromium.d",
    "vulkan",
    "OpenCL",
    "glvnd",
    "drirc",
    "pulse/client.conf",
    "alsa",
    "python3",
    "perl",
    "java-11-openjdk",
    "java-17-openjdk",
    "lighttpd/conf-available",
    "crypto-policies",
};

static const struct {
    const char *path;
    mode_t mode;
} folders[] = {
    {"usr", 0755},     {"etc", 0755},     {"tmp", 01777},      {"var", 0755}, {"var/tmp", 01777},
    {"var/log", 0755}, {"var/lib", 0755}, {"var/cache", 0755}, {"run", 0755}, {"root", 0700},
    {"home", 0755},    {"mnt", 0755},     {"media", 0755},     {"opt", 0755}, {"srv", 0755},
    {"proc", 0755},    {"sys", 0755},     {"dev", 0755},
};

static const struct {
    const char *path;
    const char *target;
} links[] = {
    {"var/run", "/run"},
    {"var/lock", "/run/lock"},
    {"etc/mtab", "../proc/self/mounts"},
};

/* The engine mounts its own over them. */
static const char *const empty_files[] = {"etc/hostname", "etc/hosts", "etc/resolv.conf"};

/* Links into /usr on a merged system, folders of their own elsewhere: then they are mounted too. */
static const char *const usr_names[] = {"bin", "sbin", "lib", "lib32", "lib64", "libx32"};

static const char *const environment_path =
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const struct store_host_mount *store_host_mounts(void)
{
    static struct store_host_mount mounts[ARRAY_SIZE(usr_names) + 2];
    static pthread_mutex_t once = PTHREAD_MUTEX_INITIALIZER;
    static const char *const sources[] = {"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"};

    pthread_mutex_lock(&once);
    if (!mounts[0].source) {
        size_t count = 0;
        struct stat status;
        for (size_t i = 0; i < ARRAY_SIZE(sources); i++)
            if (lstat(sources[i], &status) == 0 && S_ISDIR(status.st_mode)) {
                count++;
                mounts[count] = (struct store_host_mount){sources[i], sources[i]};
            }
        mounts[0] = (struct store_host_mount){"/usr", "/usr"};
    }
    pthread_mutex_unlock(&once);
    return mounts;
}

/* What one visit of /etc does: first only the fingerprint, then the copy. */
struct visit {
    struct buffer fingerprint;
    uint64_t bytes; /* of the files that were copied */
    int target_fd;  /* root of the skeleton; -1: fingerprint only */
};

static int copy_file(struct visit *visit, int dir_fd, const char *name, const char *path,
                     const struct stat *status, struct error *err)
{
    _cleanup_free_ char *content = NULL;
    size_t length;
    int r = file_read_at(dir_fd, name, HOST_FILE_MAX, &content, &length, err);

    if (r < 0)
        return r;
    _cleanup_close_ int fd = file_open_in_root(visit->target_fd, path, O_WRONLY | O_CREAT | O_EXCL,
                                               status->st_mode & 0755);
    if (fd < 0)
        return error_errno(err, -fd, "create %s", path);
    visit->bytes += length;
    r = file_write_all(fd, content, length);
    return r < 0 ? error_errno(err, -r, "write %s", path) : 0;
}

static int copy_link(const struct visit *visit, int dir_fd, const char *name, const char *path,
                     struct error *err)
{
    char target[4096];
    ssize_t n = readlinkat(dir_fd, name, target, sizeof(target) - 1);

    if (n < 0)
        return error_errno(err, errno, "read link %s", path);
    target[n] = '\0';
    return symlinkat(target, visit->target_fd, path) < 0 ? error_errno(err, errno, "link %s", path)
                                                         : 0;
}

static int visit_entry(struct visit *visit, int dir_fd, const char *name, const char *path,
                       int depth, struct error *err);

/* Sorted, so that the fingerprint does not depend on the order on the disk. */
static int visit_folder(struct visit *visit, int dir_fd, const char *name, const char *path,
                        int depth, struct error *err)
{
    _cleanup_close_ int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct dirent **entries = NULL;
    int r = 0;

    if (fd < 0 || depth > HOST_DEPTH_MAX)
        return 0;
    if (visit->target_fd >= 0 && mkdirat(visit->target_fd, path, 0755) < 0 && errno != EEXIST)
        return error_errno(err, errno, "create %s", path);
    int count = scandirat(fd, ".", &entries, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        const char *entry = entries[i]->d_name;
        if (r == 0 && !text_equal(entry, ".") && !text_equal(entry, "..")) {
            _cleanup_free_ char *below = xasprintf("%s/%s", path, entry);
            r = visit_entry(visit, fd, entry, below, depth + 1, err);
        }
        free(entries[i]);
    }
    free(entries);
    return r;
}

/* What others may not read stays out: the list names public files, a machine may differ. */
static int visit_entry(struct visit *visit, int dir_fd, const char *name, const char *path,
                       int depth, struct error *err)
{
    struct stat status;

    if (fstatat(dir_fd, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return 0;
    if (!S_ISLNK(status.st_mode) && !(status.st_mode & S_IROTH))
        return 0;
    buffer_printf(&visit->fingerprint, "%s %o %lld %lld.%09ld\n", path, status.st_mode,
                  (long long)status.st_size, (long long)status.st_mtim.tv_sec,
                  status.st_mtim.tv_nsec);
    if (S_ISDIR(status.st_mode))
        return visit_folder(visit, dir_fd, name, path, depth, err);
    if (visit->target_fd < 0)
        return 0;
    if (S_ISLNK(status.st_mode))
        return copy_link(visit, dir_fd, name, path, err);
    if (S_ISREG(status.st_mode) && status.st_size <= HOST_FILE_MAX)
        return copy_file(visit, dir_fd, name, path, &status, err);
    return 0;
}

static int visit_etc(struct visit *visit, struct error *err)
{
    _cleanup_close_ int root_fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r = 0;

    if (root_fd < 0)
        return error_errno(err, errno, "open /");
    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(etc_names); i++) {
        _cleanup_free_ char *path = xasprintf("etc/%s", etc_names[i]);
        char *slash = strrchr(path, '/');
        if (visit->target_fd >= 0 && slash != path + 3) {
            _cleanup_free_ char *parent = xstrndup(path, (size_t)(slash - path));
            int fd = file_mkdir_in_root(visit->target_fd, parent, 0755, err);
            if (fd < 0)
                return fd;
            close_fd(fd);
        }
        r = visit_entry(visit, root_fd, path, path, 0, err);
    }
    return r;
}

/* System accounts only: UIDs below 1000 and nobody; no passwords and no names of people. */
static bool is_system_account(const char *line)
{
    const char *second = strchr(line, ':');
    const char *third = second ? strchr(second + 1, ':') : NULL;
    uint64_t id;

    if (!third)
        return false;
    _cleanup_free_ char *number = xstrndup(third + 1, strcspn(third + 1, ":"));
    return text_to_u64(number, 0, 65534, &id) == 0 && (id < 1000 || id == 65534);
}

/* name:x:ID:rest; in group files the rest lists members, who may be people: left out. */
static void add_account(struct buffer *text, const char *line, bool group)
{
    char *const none[] = {NULL};
    char **fields = strv_split(line, ':');
    size_t count = strv_length(fields ? fields : none);

    for (size_t i = 0; i < count; i++) {
        const char *field = fields[i];
        if (i == 1)
            field = "x";
        if (group && i == 3)
            field = "";
        buffer_printf(text, "%s%s", i ? ":" : "", field);
    }
    buffer_append_char(text, '\n');
    strv_free(fields);
}

static int write_accounts(int target_fd, const char *name, bool group, struct error *err)
{
    _cleanup_free_ char *path = xasprintf("/etc/%s", name);
    _cleanup_free_ char *content = NULL;
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    int r = file_read_at(AT_FDCWD, path, HOST_FILE_MAX, &content, NULL, err);

    if (r < 0)
        return r;
    _cleanup_strv_ char **lines = strv_split(content, '\n');
    for (size_t i = 0; lines && lines[i]; i++)
        if (is_system_account(lines[i]))
            add_account(&text, lines[i], group);
    return file_replace_at(target_fd, path + 1, buffer_text(&text), text.length, 0644, err);
}

static int make_usr_names(int target_fd, struct error *err)
{
    for (size_t i = 0; i < ARRAY_SIZE(usr_names); i++) {
        _cleanup_free_ char *path = xasprintf("/%s", usr_names[i]);
        char target[256];
        struct stat status;
        int r = 0;
        ssize_t n = readlink(path, target, sizeof(target) - 1);
        if (n > 0) {
            target[n] = '\0';
            r = symlinkat(target, target_fd, usr_names[i]);
        } else if (lstat(path, &status) == 0 && S_ISDIR(status.st_mode)) {
            r = mkdirat(target_fd, usr_names[i], 0755);
        }
        if (r < 0)
            return error_errno(err, errno, "create %s", usr_names[i]);
    }
    return 0;
}

static int make_skeleton(int target_fd, struct error *err)
{
    for (size_t i = 0; i < ARRAY_SIZE(folders); i++)
        if (mkdirat(target_fd, folders[i].path, 0700) < 0 ||
            fchmodat(target_fd, folders[i].path, folders[i].mode, 0) < 0)
            return error_errno(err, errno, "create %s", folders[i].path);
    for (size_t i = 0; i < ARRAY_SIZE(links); i++)
        if (symlinkat(links[i].target, target_fd, links[i].path) < 0)
            return error_errno(err, errno, "create %s", links[i].path);
    for (size_t i = 0; i < ARRAY_SIZE(empty_files); i++) {
        int r = file_replace_at(target_fd, empty_files[i], "", 0, 0644, err);
        if (r < 0)
            return r;
    }
    int r = make_usr_names(target_fd, err);
    if (r == 0)
        r = write_accounts(target_fd, "passwd", false, err);
    if (r == 0)
        r = write_accounts(target_fd, "group", true, err);
    return r;
}

static int host_layer_install(struct store_staging *staging, const char *key, uint64_t size,
                              struct error *err)
{
    struct store *store = staging->store;
    int64_t layer;
    int r = staging_flush(staging, err);

    if (r < 0)
        return r;
    pthread_mutex_lock(&store->files);
    r = store_db_begin(store->db, err);
    if (r == 0) {
        r = layer_install(staging, "host", key, key, size, &layer, err);
        if (r == 0)
            r = install_flush(staging, err);
        if (r == 0)
            r = store_db_commit(store->db, err);
        else
            store_db_rollback(store->db);
    }
    pthread_mutex_unlock(&store->files);
    return r;
}

/* Builds it in a staging folder; the record and the rename come together. */
static int install_skeleton(struct store *store, struct visit *visit, const char *key,
                            struct error *err)
{
    _cleanup_store_staging_ struct store_staging *staging = NULL;
    int r = store_staging_create(store, &staging, err);

    if (r < 0)
        return r;
    if (mkdirat(store_staging_fd(staging), "host", 0755) < 0)
        return error_errno(err, errno, "create a folder for the image host");
    _cleanup_close_ int target_fd =
        openat(store_staging_fd(staging), "host", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (target_fd < 0 || fchmod(target_fd, 0755) < 0)
        return error_errno(err, errno, "open a folder for the image host");
    r = make_skeleton(target_fd, err);
    buffer_clear(&visit->fingerprint);
    visit->target_fd = target_fd;
    if (r == 0)
        r = visit_etc(visit, err);
    if (r == 0)
        r = host_layer_install(staging, key, visit->bytes, err);
    return r;
}

static const char *oci_architecture(void)
{
    static const char *const names[][2] = {{"x86_64", "amd64"}, {"aarch64", "arm64"}};
    static struct utsname name;

    uname(&name);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if (text_equal(name.machine, names[i][0]))
            return names[i][1];
    return name.machine;
}

static int record_image(struct store *store, struct error *err)
{
    char id[DIGEST_TEXT_SIZE];
    _cleanup_free_ char *config =
        xasprintf("{\"architecture\":\"%s\",\"os\":\"linux\",\"config\":{\"Env\":[\"%s\"],"
                  "\"Cmd\":[\"/bin/sh\"]},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[]}}",
                  oci_architecture(), environment_path);

    digest_of(config, strlen(config), id);
    int r = store_db_begin(store->db, err);
    if (r < 0)
        return r;
    _cleanup_store_rollback_ struct store_db *transaction = store->db;
    r = store_db_run(store->db, err, "DELETE FROM image WHERE built_in = 1 AND id <> ?", "t", id);
    if (r >= 0)
        r = store_db_run(store->db, err,
                         "INSERT OR IGNORE INTO image(id, manifest, base, built_in, created, added,"
                         " config) VALUES(?1, NULL, ?2, 1, ?3, ?3, ?4)",
                         "ttit", id, STORE_HOST_IMAGE, clock_now(), config);
    if (r >= 0)
        r = store_db_run(store->db, err,
                         "INSERT OR REPLACE INTO image_name(name, image) VALUES(?, ?)", "tt",
                         STORE_HOST_NAME, id);
    return r < 0 ? r : store_db_commit(transaction, err);
}

int host_layer(struct store *store, int64_t *ret, struct error *err)
{
    _cleanup_store_statement_ struct store_statement *statement = NULL;
    int r = store_db_query(store->db, &statement, err,
                           "SELECT MAX(id) FROM layer WHERE key LIKE 'host:%'", "");

    if (r >= 0)
        r = store_statement_step(statement, err);
    if (r < 0)
        return r;
    *ret = store_statement_integer(statement, 0);
    return 0;
}

/* Whether the newest skeleton has this key. */
static int is_current(struct store *store, const char *key, struct error *err)
{
    _cleanup_store_statement_ struct store_statement *statement = NULL;
    int r = store_db_query(store->db, &statement, err,
                           "SELECT 1 FROM layer WHERE key LIKE ? || '#%'"
                           " AND id = (SELECT MAX(id) FROM layer WHERE key LIKE 'host:%')",
                           "t", key);

    return r < 0 ? r : store_statement_step(statement, err);
}

int host_refresh(struct store *store, struct error *err)
{
    struct visit visit = {.fingerprint = BUFFER_INIT, .target_fd = -1};
    char digest[DIGEST_TEXT_SIZE];

    buffer_printf(&visit.fingerprint, "format %d\n", HOST_FORMAT);
    int r = visit_etc(&visit, err);
    for (size_t i = 0; r == 0 && i < 2; i++) {
        struct stat status;
        if (stat(i ? "/etc/group" : "/etc/passwd", &status) == 0)
            buffer_printf(&visit.fingerprint, "%lld\n", (long long)status.st_mtim.tv_sec);
    }
    digest_of(visit.fingerprint.data, visit.fingerprint.length, digest);
    _cleanup_free_ char *key = xasprintf("host:%s", digest_hex(digest));

    if (r == 0)
        r = is_current(store, key, err);
    if (r == 0) {
        /* A container may still stand on an older skeleton with the same files: keys are unique. */
        char suffix[9];
        text_random_hex(suffix, 8);
        _cleanup_free_ char *unique = xasprintf("%s#%s", key, suffix);
        r = install_skeleton(store, &visit, unique, err);
        if (r == 0)
            r = record_image(store, err);
        if (r == 0)
            r = garbage_collect(store, err);
    }
    buffer_finish(&visit.fingerprint);
    if (r < 0)
        return error_context(err, "make the image " STORE_HOST_IMAGE), r;
    return 0;
}
