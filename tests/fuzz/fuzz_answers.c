/*
 * libFuzzer target: what cloche-runtime makes of texts that the kernel, criu, systemd's callers and
 * the container's image write. Files and sockets are not there: the linker puts the functions at
 * the end of this file in the place of those that read them. The first byte says what the rest is:
 *
 *   c  datagrams that criu sends, each behind a byte with its length / 8
 *   n  datagrams of rtnetlink, likewise
 *   g  a value of an annotation org.systemd.property.*
 *   s  the files of a cgroup, for the statistics: each file is all of the text; version 1
 *   S  the same, version 2
 *   d  devices.list of version 1
 *   m  /proc/self/mountinfo
 *   u  /proc/self/uid_map
 *   l  a list of numbers, as of CPUs
 *   r  the record of a container
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/json.h>
#include <schema/oci_config.h>

#include "cgroup.h"
#include "cgroup_resources.h"
#include "container.h"
#include "cgroup_stats.h"
#include "criu.h"
#include "gvariant.h"
#include "id_list.h"
#include "protobuf.h"
#include "record.h"
#include "rootfs_change.h"
#include "rtnetlink.h"
#include "users.h"

enum { DATAGRAM_UNIT = 8, LINK_INDEX = 2, LIST_MAX = 1024, DIRECTORY_FD = 0 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What is left of the input. */
static const uint8_t *input;
static size_t input_size;

static void expect(bool condition)
{
    if (!condition)
        abort();
}

static ssize_t next_datagram(void *data, size_t size)
{
    if (input_size == 0)
        return 0;
    size_t length = (size_t)*input * DATAGRAM_UNIT;
    input++, input_size--;
    if (length > input_size)
        length = input_size;
    size_t taken = length < size ? length : size;
    memcpy(data, input, taken);
    input += length, input_size -= length;
    return (ssize_t)taken;
}

/* ---- what is tried */

static int on_event(struct criu_event *event, void *context, struct error *err)
{
    (void)context, (void)err;
    expect(event->script != NULL);
    return strlen(event->script) % 2 ? -EIO : 0;
}

static void try_criu(void)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct criu criu = {.fd = -1};
    struct protobuf_reader reader = {input, input + input_size};
    struct protobuf_field field;

    while (protobuf_next(&reader, &field) > 0)
        expect(reader.at <= reader.end && (!field.data || field.data + field.length <= reader.at));
    int r = criu_call(&criu, CRIU_RESTORE, NULL, on_event, NULL, &err);
    expect(r <= 0);
}

static void try_rtnetlink(void)
{
    struct rtnetlink_address *addresses = NULL;
    size_t count = 0;

    rtnetlink_find(DIRECTORY_FD, "eth0");
    if (rtnetlink_addresses(DIRECTORY_FD, LINK_INDEX, &addresses, &count) < 0)
        return;
    for (size_t i = 0; i < count; i++)
        expect(addresses[i].header.ifa_index == LINK_INDEX &&
               addresses[i].length <= sizeof(addresses[i].attributes));
    free(addresses);
}

static void try_gvariant(const char *text)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct gvariant *value;

    if (gvariant_parse(text, &value, &err) < 0)
        return;
    expect(value->signature[0] && strlen(value->signature) <= GVARIANT_SIGNATURE_MAX);
    gvariant_to_microseconds(value, NULL);
    gvariant_free(value);
}

static void try_stats(const struct cgroup_ops *ops)
{
    _cleanup_buffer_ struct buffer out = BUFFER_INIT;
    _cleanup_error_ struct error err = ERROR_INIT;
    struct cgroup cgroup = {.ops = ops};
    static const char *const names[] = {"cpu", "cpuacct", "cpuset", "memory", "blkio", "pids"};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        struct cgroup_hierarchy *hierarchy = &cgroup.hierarchies[cgroup.count++];
        *hierarchy = (struct cgroup_hierarchy){.root_fd = -1, .fd = DIRECTORY_FD};
        strcpy(hierarchy->name, ops->version == 2 ? "" : names[i]);
    }
    cgroup_stats_write(&cgroup, NULL, "fuzz", &out);
    expect(out.length > 0 && out.data[0] == '{' && out.data[out.length - 1] == '}');
    cgroup_oom_kills(&cgroup);
}

static int freeze(struct cgroup *cgroup, bool frozen, struct error *err)
{
    (void)cgroup, (void)frozen, (void)err;
    return 0;
}

static int is_frozen(struct cgroup *cgroup)
{
    (void)cgroup;
    return 0;
}

static void try_devices(void)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    const struct cgroup_ops ops = {.version = 1, .freeze = freeze, .is_frozen = is_frozen};
    struct cgroup cgroup = {.ops = &ops, .count = 1};
    const struct device_rule rule = {
        .allow = true, .type = 'c', .major = 1, .minor = 3, .read = true};

    cgroup.hierarchies[0] =
        (struct cgroup_hierarchy){.name = "devices", .root_fd = -1, .fd = DIRECTORY_FD};
    cgroup_v1_set_devices(&cgroup, &rule, 1, true, &err);
}

static void try_mountinfo(void)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct container container = {.root_fd = -1, .proc_fd = DIRECTORY_FD};

    rootfs_chroot_hardened(&container, &err);
}

static void try_map(void)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct oci_id_mapping first = {0, 1000, 1}, second = {1, 100000, 65536};
    struct oci_id_mapping *maps[] = {&first, &second, NULL};
    struct oci_linux config = {.uid_mappings = maps, .uid_mappings_count = 2};

    users_check_joined(DIRECTORY_FD, &config, &err);
}

static void try_list(const char *text)
{
    unsigned long mask[LIST_MAX / ID_LIST_WORD_BITS];

    id_list_parse(text, mask, LIST_MAX);
}

static void try_record(void)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct record record;

    if (record_read(DIRECTORY_FD, &record, &err) < 0)
        return;
    size_t head = (size_t)(record.config - record.state); /* which may hold zeros */
    expect(memchr(input, 0, head) || record.state[strlen(record.state) - 1] == '}');
    expect(record.config > record.state && record.config_length <= input_size);
    for (size_t i = 0; i < record.config_length; i++)
        expect(record.config[i] == (char)input[(size_t)(record.config - record.state) + i]);
    record_finish(&record);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    _cleanup_free_ char *text = xmalloc(size);
    memcpy(text, data + 1, size - 1);
    text[size - 1] = '\0';
    input = data + 1, input_size = size - 1;
    switch (data[0]) {
    case 'c':
        try_criu();
        break;
    case 'n':
        try_rtnetlink();
        break;
    case 'g':
        try_gvariant(text);
        break;
    case 's':
    case 'S':
        try_stats(data[0] == 's' ? &cgroup_v1_ops : &cgroup_v2_ops);
        break;
    case 'd':
        try_devices();
        break;
    case 'm':
        try_mountinfo();
        break;
    case 'u':
        try_map();
        break;
    case 'l':
        try_list(text);
        break;
    case 'r':
        try_record();
        break;
    default:
        break;
    }
    return 0;
}

/* ---- in the place of others (ld(1), --wrap) */

int __wrap_openat(int directory_fd, const char *path, int flags, ...);
int __wrap_openat64(int directory_fd, const char *path, int flags, ...)
    __attribute__((alias("__wrap_openat")));
int __wrap___openat64_2(int directory_fd, const char *path, int flags, ...)
    __attribute__((alias("__wrap_openat")));
ssize_t __wrap_recvfrom(int fd, void *data, size_t size, int flags, struct sockaddr *from,
                        socklen_t *length);
ssize_t __wrap_sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *to,
                      socklen_t length);
ssize_t __wrap_socket_receive(int fd, void *data, size_t length, int *fds, size_t *fds_count);
ssize_t __wrap_socket_send(int fd, const void *data, size_t length, const int *fds, size_t count);
int __wrap_kernel_mount(const char *source, const char *target, const char *type,
                        unsigned long flags, const char *data);
int __wrap_kernel_umount(const char *target, int flags);
int __wrap_kernel_mount_id(int fd, uint64_t *mount, uint64_t *inode);
int __wrap_fchdir(int fd);

/* Every file is what is left of the input. */
int __wrap_openat(int directory_fd, const char *path, int flags, ...)
{
    static int file = -1;
    char place[32];

    (void)directory_fd, (void)path;
    if ((flags & O_ACCMODE) != O_RDONLY)
        return open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (file < 0)
        file = memfd_create("input", MFD_CLOEXEC);
    snprintf(place, sizeof(place), "/proc/self/fd/%d", file);
    if (ftruncate(file, 0) < 0 || pwrite(file, input, input_size, 0) != (ssize_t)input_size)
        abort();
    return open(place, O_RDONLY | O_CLOEXEC);
}

ssize_t __wrap_recvfrom(int fd, void *data, size_t size, int flags, struct sockaddr *from,
                        socklen_t *length)
{
    (void)fd, (void)flags;
    if (from)
        memset(from, 0, *length);
    return next_datagram(data, size);
}

ssize_t __wrap_sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *to,
                      socklen_t length)
{
    (void)fd, (void)data, (void)flags, (void)to, (void)length;
    return (ssize_t)size;
}

ssize_t __wrap_socket_receive(int fd, void *data, size_t length, int *fds, size_t *fds_count)
{
    (void)fd, (void)fds;
    *fds_count = 0;
    return next_datagram(data, length);
}

ssize_t __wrap_socket_send(int fd, const void *data, size_t length, const int *fds, size_t count)
{
    (void)fd, (void)data, (void)fds, (void)count;
    return (ssize_t)length;
}

int __wrap_kernel_mount(const char *source, const char *target, const char *type,
                        unsigned long flags, const char *data)
{
    (void)source, (void)target, (void)type, (void)flags, (void)data;
    return 0;
}

int __wrap_kernel_umount(const char *target, int flags)
{
    (void)flags;
    return strlen(target) % 2 ? -EINVAL : 0;
}

int __wrap_kernel_mount_id(int fd, uint64_t *mount, uint64_t *inode)
{
    (void)fd, (void)inode;
    *mount = 30;
    return 0;
}

int __wrap_fchdir(int fd)
{
    (void)fd;
    errno = EBADF;
    return -1;
}
