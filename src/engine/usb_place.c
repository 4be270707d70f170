#include "usb_place.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/loop.h>
#include <base/text.h>
#include <engine/usb.h>

#include "usb_place_child.h"

enum { COMPLAINT_MAX = 1024, STATUS_MAX = 8192, ANSWER_MAX = 64 };

/* --- whose namespace -------------------------------------------------------------------------- */

/* Real, effective, saved, file system: proc_pid_status(5). */
static bool read_ids(const char *text, const char *name, unsigned *ret)
{
    const char *line = strstr(text, name);
    unsigned real;

    return line && sscanf(line + strlen(name), "%u %u", &real, ret) == 2;
}

static bool is_child_of(const char *text, int64_t parent)
{
    const char *line = strstr(text, "\nPPid:");
    long long number;

    return line && sscanf(line, "\nPPid: %lld", &number) == 1 && number == parent;
}

int usb_place_open(const struct container *container, int *ret_fd, uid_t *ret_uid, gid_t *ret_gid,
                   struct error *err)
{
    const struct record_container *record = container->record;
    _cleanup_free_ char *path = xasprintf("/proc/%d", (int)record->pid);
    _cleanup_close_ int folder = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    _cleanup_close_ int fd = -1;
    _cleanup_free_ char *status = NULL;
    unsigned uid, gid;

    /* The folder stays that of this process: what is read in it behind is of no other one. */
    if (record->pid > 0 && folder >= 0)
        fd = openat(folder, "ns/mnt", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || file_read_at(folder, "status", STATUS_MAX, &status, NULL, NULL) < 0 ||
        !is_child_of(status, record->monitor_pid) || !read_ids(status, "\nUid:", &uid) ||
        !read_ids(status, "\nGid:", &gid))
        return error_set(err, -ESRCH, "container %.12s does not run", container->id);
    *ret_uid = uid;
    *ret_gid = gid;
    *ret_fd = steal_fd(&fd);
    return 0;
}

/* --- the child -------------------------------------------------------------------------------- */

struct placing {
    int output_fd, complaint_fd;
    usb_place_done done;
    void *data;
};

static void on_ended(int status, void *data)
{
    struct placing *placing = data;
    _cleanup_error_ struct error err = ERROR_INIT;
    char text[COMPLAINT_MAX + 1] = "", answer[ANSWER_MAX + 1] = "";
    unsigned long long device = 0;

    if (WIFSIGNALED(status)) {
        error_set(&err, -ETIMEDOUT, "what is at that path in the container does not answer");
    } else if (WEXITSTATUS(status)) {
        ssize_t length = pread(placing->complaint_fd, text, COMPLAINT_MAX, 0);
        error_set(&err, -EIO, "%.*s", length > 0 ? (int)length : 0, text);
    } else if (pread(placing->output_fd, answer, ANSWER_MAX, 0) > 0) {
        device = strtoull(answer, NULL, 10);
    }
    placing->done(err.code ? &err : NULL, device, placing->data);
    close_fd(placing->output_fd);
    close_fd(placing->complaint_fd);
    free(placing);
}

static int memory_file(const char *text, struct error *err)
{
    _cleanup_close_ int fd = memfd_create("usb-place", MFD_CLOEXEC);
    int r = fd < 0 ? -errno : file_write_all(fd, text, strlen(text));

    if (r == 0 && lseek(fd, 0, SEEK_SET) < 0)
        r = -errno;
    return r < 0 ? error_errno(err, -r, "make a file in memory") : steal_fd(&fd);
}

static int run(struct engine *engine, const char *request, int namespace_fd, int mount_fd,
               usb_place_done done, void *data, struct error *err)
{
    struct placing *placing = xnew(struct placing);
    _cleanup_close_ int input = memory_file(request, err);
    char *const argv[] = {(char *)"cloched", (char *)ENGINE_USB_PLACE_OPTION, NULL};
    struct process process;
    int r = input < 0 ? input : 0;

    *placing = (struct placing){-1, -1, done, data};
    if (r == 0)
        r = placing->output_fd = memory_file("", err);
    if (r >= 0)
        r = placing->complaint_fd = memory_file("", err);
    const int fds[] = {input, placing->output_fd, placing->complaint_fd,
                       [USB_PLACE_NAMESPACE_FD] = namespace_fd, [USB_PLACE_MOUNT_FD] = mount_fd};
    const struct process_spec spec = {
        .path = "/proc/self/exe",
        .argv = argv,
        .fds = fds,
        .fds_count = ARRAY_SIZE(fds),
        .directory = "/",
    };
    if (r >= 0)
        r = process_spawn(&spec, &process, err);
    if (r < 0) {
        close_fd(placing->output_fd);
        close_fd(placing->complaint_fd);
        free(placing);
        return r;
    }
    return loop_watch_child(engine->loop, &process, USB_PLACE_TIMEOUT_MS, on_ended, placing, err);
}

int usb_place_mount(struct engine *engine, int namespace_fd, int mount_fd, const char *target,
                    usb_place_done done, void *data, struct error *err)
{
    _cleanup_free_ char *request = xasprintf(USB_PLACE_MOUNT "%s", target);

    return run(engine, request, namespace_fd, mount_fd, done, data, err);
}

int usb_place_unmount(struct engine *engine, int namespace_fd, uint64_t device, const char *source,
                      usb_place_done done, void *data, struct error *err)
{
    _cleanup_free_ char *request =
        xasprintf(USB_PLACE_UNMOUNT "%u:%u %s", major(device), minor(device), source);

    return run(engine, request, namespace_fd, -1, done, data, err);
}
