#include <dirent.h>
#include <fcntl.h>
#include <seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "filter_cache.h"
#include "filter_guard.h"

#define CACHE_PREFIX "filter,"

/* Head of a file; the key and the filter follow. */
struct cache_head {
    char magic[8]; /* CACHE_MAGIC; its digit is the format's version */
    uint64_t key_length;
    uint64_t filter_size;
};

static const char cache_magic[8] = "cloflt3";

/* What decides a program: the library, the machine and the kernel (the flags it knows) as well as
 * the profile. */
static void write_key(const struct oci_seccomp *config, struct buffer *key)
{
    const struct scmp_version *version = seccomp_version();
    struct oci_seccomp rules = *config;
    struct utsname system;

    uname(&system);
    buffer_printf(key, "libseccomp %u.%u.%u %s %s\n", version->major, version->minor,
                  version->micro, system.machine, system.release);
    /* To whom the listener goes is different for each container, and no part of the program. */
    buffer_printf(key, "listener %d\n", filter_wants_listener(config));
    rules.listener_path = rules.listener_metadata = NULL;
    oci_seccomp_write(&rules, key);
}

/* FNV-1a. It only has to name files: the key itself is compared. */
static uint64_t hash_of(const struct buffer *key)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    for (size_t i = 0; i < key->length; i++)
        hash = (hash ^ (uint8_t)key->data[i]) * UINT64_C(0x100000001b3);
    return hash;
}

/* Nobody but us may have written it. */
static bool is_ours(int fd)
{
    struct stat status;

    return fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_uid == geteuid() &&
           !(status.st_mode & 022);
}

/* The filter in the file's text, when it is one for this key. */
static bool unpack(const char *text, size_t length, const struct buffer *key, struct filter **ret,
                   size_t *ret_size)
{
    struct cache_head head;

    if (length < sizeof(head))
        return false;
    memcpy(&head, text, sizeof(head));
    if (memcmp(head.magic, cache_magic, sizeof(cache_magic)) != 0 ||
        head.key_length != key->length || head.filter_size < sizeof(struct filter) ||
        head.filter_size > sizeof(struct filter) + FILTER_MAX * sizeof(uint64_t) ||
        length != sizeof(head) + head.key_length + head.filter_size ||
        memcmp(text + sizeof(head), key->data, key->length) != 0)
        return false;
    *ret = xmemdup(text + sizeof(head) + key->length, head.filter_size);
    *ret_size = head.filter_size;
    return true;
}

static bool read_cached(int root_fd, const char *name, const struct buffer *key,
                        struct filter **ret, size_t *ret_size)
{
    _cleanup_close_ int fd = openat(root_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    _cleanup_free_ char *text = NULL;
    size_t length = 0;

    if (fd < 0 || !is_ours(fd) ||
        file_read_fd(fd, 2 * FILTER_CACHE_PROFILE_MAX, &text, &length, NULL) < 0)
        return false;
    return unpack(text, length, key, ret, ret_size);
}

static bool has_room(int root_fd)
{
    int fd = openat(root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    _cleanup_closedir_ DIR *directory = fd >= 0 ? fdopendir(fd) : NULL;
    int count = 0;

    if (!directory) {
        close_fd(fd);
        return false;
    }
    for (struct dirent *entry; (entry = readdir(directory));)
        count += text_starts_with(entry->d_name, CACHE_PREFIX);
    return count < FILTER_CACHE_FILES_MAX;
}

static void write_cached(int root_fd, const char *name, const struct buffer *key,
                         const struct filter *filter, size_t size)
{
    struct cache_head head = {.key_length = key->length, .filter_size = size};
    _cleanup_buffer_ struct buffer file = BUFFER_INIT;

    if (!has_room(root_fd))
        return;
    memcpy(head.magic, cache_magic, sizeof(cache_magic));
    buffer_append(&file, &head, sizeof(head));
    buffer_append(&file, key->data, key->length);
    buffer_append(&file, filter, size);
    file_replace_at(root_fd, name, file.data, file.length, 0600, NULL);
}

int filter_get(int root_fd, const struct oci_seccomp *config, struct filter **ret, size_t *ret_size,
               struct error *err)
{
    _cleanup_buffer_ struct buffer key = BUFFER_INIT;
    char name[sizeof(CACHE_PREFIX) + 16];

    if (!config || root_fd < 0)
        return filter_compile_guarded(config, ret, ret_size, err);
    write_key(config, &key);
    if (key.length > FILTER_CACHE_PROFILE_MAX)
        return filter_compile_guarded(config, ret, ret_size, err);
    snprintf(name, sizeof(name), CACHE_PREFIX "%016llx", (unsigned long long)hash_of(&key));
    if (read_cached(root_fd, name, &key, ret, ret_size))
        return 0;
    int r = filter_compile_guarded(config, ret, ret_size, err);
    if (r == 0)
        write_cached(root_fd, name, &key, *ret, *ret_size);
    return r;
}
