#include "look.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/loop.h>
#include <base/text.h>

#include "look_child.h"
#include "volume_mount.h"

enum { COMPLAINT_MAX = 4096, OUTPUT_MAX = 4 * 1024 * 1024 };
/* For all of it. A server may take longer than a path. */
enum { PATHS_TIMEOUT_SECONDS = LOOK_TIMEOUT_SECONDS, VOLUMES_TIMEOUT_SECONDS = 60 };

/* What a request to the child is about. */
struct subject {
    const struct api_device *device; /* NULL: a limit, or only to be there */
    bool is_limit;
    enum bundle_limit_kind kind;
    uint64_t value;
    const char *path; /* of the machine */
};

struct look_call {
    int complaint_fd; /* what the child says when it fails */
    int output_fd;    /* what it has found */
    struct buffer requests;
    bool mounts; /* volumes */
    struct subject *subjects;
    size_t subjects_count;
    look_done done;
    void *data;
};

static void call_free(struct look_call *call)
{
    close_fd(call->complaint_fd);
    close_fd(call->output_fd);
    buffer_finish(&call->requests);
    free(call->subjects);
    free(call);
}

void look_finish(struct look *look)
{
    for (size_t i = 0; i < look->devices_count; i++) {
        free((char *)look->devices[i].path);
        free((char *)look->devices[i].source);
        free((char *)look->devices[i].access);
    }
    free(look->devices);
    free(look->limits);
    *look = (struct look){0};
}

/* --- asking ----------------------------------------------------------------------------------- */

static void ask(struct look_call *call, const char *verb, struct subject subject)
{
    buffer_printf(&call->requests, "%s%s", verb, subject.path);
    buffer_append_char(&call->requests, '\0');
    call->subjects = xrealloc(call->subjects, call->subjects_count + 1, sizeof(subject));
    call->subjects[call->subjects_count++] = subject;
}

static bool wants_source(const struct api_mount *mount)
{
    return text_equal(mount->type, "bind") &&
           !(mount->bind_options && mount->bind_options->create_mountpoint);
}

bool look_wants_sources(const struct api_container_spec *spec)
{
    for (size_t i = 0; i < spec->mounts_count; i++) {
        if (wants_source(spec->mounts[i]))
            return true;
    }
    return false;
}

/* What goes to and fro there needs a mount that lets it through. */
static void ask_propagation(struct look_call *call, const struct api_mount *mount)
{
    const char *word = mount->bind_options ? mount->bind_options->propagation : NULL;

    if (text_empty(word))
        return;
    if (text_ends_with(word, "shared"))
        ask(call, LOOK_SHARED, (struct subject){.path = mount->source});
    else if (text_ends_with(word, "slave"))
        ask(call, LOOK_SLAVE, (struct subject){.path = mount->source});
}

static void ask_volume(struct look_call *call, const struct engine *engine,
                       const struct api_mount *mount)
{
    _cleanup_free_ char *request = volume_mount_request(engine, mount);

    call->mounts = true;
    ask(call, LOOK_VOLUME, (struct subject){.path = request});
    call->subjects[call->subjects_count - 1].path = "";
}

static void ask_mounts(struct look_call *call, const struct engine *engine,
                       const struct api_container_spec *spec)
{
    for (size_t i = 0; i < spec->mounts_count; i++) {
        const struct api_mount *mount = spec->mounts[i];
        if (volume_has_options(mount))
            ask_volume(call, engine, mount);
        if (!text_equal(mount->type, "bind"))
            continue;
        ask(call, wants_source(mount) ? LOOK_SOURCE : LOOK_FOLDER,
            (struct subject){.path = mount->source});
        ask_propagation(call, mount);
    }
}

static void ask_devices(struct look_call *call, const struct api_container_spec *spec)
{
    static const struct api_device everything = {.path_on_host = (char *)"/dev"};

    if (spec->privileged)
        ask(call, LOOK_ALL_DEVICES, (struct subject){.device = &everything, .path = "/dev"});
    for (size_t i = 0; i < spec->devices_count && !spec->privileged; i++)
        ask(call, LOOK_DEVICE,
            (struct subject){.device = spec->devices[i], .path = spec->devices[i]->path_on_host});
}

static void ask_throttles(struct look_call *call, enum bundle_limit_kind kind,
                          struct api_throttle_device *const *devices, size_t count)
{
    for (size_t i = 0; i < count; i++)
        ask(call, LOOK_DEVICE,
            (struct subject){.is_limit = true,
                             .kind = kind,
                             .value = devices[i]->rate,
                             .path = devices[i]->path});
}

static void ask_limits(struct look_call *call, const struct api_resources *limits)
{
    if (!limits)
        return;
    for (size_t i = 0; i < limits->blkio_weight_device_count; i++)
        ask(call, LOOK_DEVICE,
            (struct subject){.is_limit = true,
                             .kind = BUNDLE_WEIGHT,
                             .value = limits->blkio_weight_device[i]->weight,
                             .path = limits->blkio_weight_device[i]->path});
    ask_throttles(call, BUNDLE_READ_BPS, limits->blkio_device_read_bps,
                  limits->blkio_device_read_bps_count);
    ask_throttles(call, BUNDLE_WRITE_BPS, limits->blkio_device_write_bps,
                  limits->blkio_device_write_bps_count);
    ask_throttles(call, BUNDLE_READ_IOPS, limits->blkio_device_read_iops,
                  limits->blkio_device_read_iops_count);
    ask_throttles(call, BUNDLE_WRITE_IOPS, limits->blkio_device_write_iops,
                  limits->blkio_device_write_iops_count);
}

static bool has_limits(const struct api_resources *limits)
{
    return limits && limits->blkio_weight_device_count + limits->blkio_device_read_bps_count +
                             limits->blkio_device_write_bps_count +
                             limits->blkio_device_read_iops_count +
                             limits->blkio_device_write_iops_count >
                         0;
}

bool look_finds(const struct api_container_spec *spec)
{
    return spec->privileged || spec->devices_count || has_limits(spec->resources);
}

bool look_needed(const struct api_container_spec *spec)
{
    for (size_t i = 0; i < spec->mounts_count; i++) {
        if (text_equal(spec->mounts[i]->type, "bind") || volume_has_options(spec->mounts[i]))
            return true;
    }
    return look_finds(spec);
}

/* --- the answer ------------------------------------------------------------------------------- */

static void add_limit(struct look *found, const struct subject *subject,
                      const struct look_line *line)
{
    found->limits = xrealloc(found->limits, found->limits_count + 1, sizeof(*found->limits));
    found->limits[found->limits_count++] =
        (struct bundle_limit){subject->kind, line->major, line->minor, subject->value};
}

/* Below a folder of devices the rest of the path stays the same. */
static void add_device(struct look *found, const struct subject *subject,
                       const struct look_line *line)
{
    const struct api_device *asked = subject->device;
    const char *place =
        text_empty(asked->path_in_container) ? asked->path_on_host : asked->path_in_container;
    const char *access = text_empty(asked->cgroup_permissions) ? "rwm" : asked->cgroup_permissions;

    found->devices = xrealloc(found->devices, found->devices_count + 1, sizeof(*found->devices));
    found->devices[found->devices_count++] = (struct bundle_device){
        .path = xasprintf("%s%s", place, line->path + strlen(subject->path)),
        .source = xstrdup(line->path),
        .type = line->type,
        .major = line->major,
        .minor = line->minor,
        .mode = line->mode,
        .uid = line->uid,
        .gid = line->gid,
        .access = xstrdup(access),
    };
}

static int take_line(struct look_call *call, const char *text, struct look *found)
{
    struct look_line line;

    if (look_line_parse(text, &line) < 0 || line.subject >= call->subjects_count ||
        found->devices_count >= LOOK_DEVICES_MAX)
        return -EBADMSG;
    const struct subject *subject = &call->subjects[line.subject];
    if (!text_starts_with(line.path, subject->path))
        return -EBADMSG;
    if (subject->is_limit)
        add_limit(found, subject, &line);
    else if (subject->device)
        add_device(found, subject, &line);
    return 0;
}

static int read_output(struct look_call *call, struct look *found, struct error *err)
{
    char *text = mmap(NULL, OUTPUT_MAX, PROT_READ, MAP_PRIVATE, call->output_fd, 0);
    off_t length = lseek(call->output_fd, 0, SEEK_END);
    int r = 0;

    if (text == MAP_FAILED || length < 0 || length > OUTPUT_MAX)
        r = -EBADMSG;
    for (off_t i = 0; r == 0 && i < length;) {
        size_t line = strnlen(text + i, (size_t)(length - i));
        r = i + (off_t)line < length ? take_line(call, text + i, found) : -EBADMSG;
        i += (off_t)line + 1;
    }
    if (text != MAP_FAILED)
        munmap(text, OUTPUT_MAX);
    return r < 0 ? error_set(err, r, "more devices than %d, or what was found makes no sense",
                             LOOK_DEVICES_MAX)
                 : 0;
}

static void explain_timeout(const struct look_call *call, int signal, struct error *err)
{
    if (call->mounts && signal == SIGKILL)
        error_set(err, -ETIMEDOUT, "the server or device of a volume does not answer within %d s",
                  VOLUMES_TIMEOUT_SECONDS);
    else
        error_set(err, -ETIMEDOUT, "a path to bind or a device does not answer within %d s",
                  PATHS_TIMEOUT_SECONDS);
}

static void on_ended(int status, void *data)
{
    struct look_call *call = data;
    _cleanup_error_ struct error err = ERROR_INIT;
    struct look found = {0};
    char text[COMPLAINT_MAX + 1];

    if (WIFSIGNALED(status)) {
        explain_timeout(call, WTERMSIG(status), &err);
    } else if (WEXITSTATUS(status)) {
        ssize_t length = pread(call->complaint_fd, text, COMPLAINT_MAX, 0);
        error_set(&err, WEXITSTATUS(status) == LOOK_EXIT_ASKED_WRONG ? -EINVAL : -EIO, "%.*s",
                  length > 0 ? (int)length : 0, text);
    } else {
        engine_settle(&err, read_output(call, &found, &err));
    }
    call->done(err.code ? &err : NULL, &found, call->data);
    look_finish(&found);
    call_free(call);
}

static struct look_call *call_new(look_done done, void *data)
{
    struct look_call *call = xnew(struct look_call);

    call->complaint_fd = memfd_create("complaint", MFD_CLOEXEC);
    call->output_fd = memfd_create("found", MFD_CLOEXEC);
    call->done = done;
    call->data = data;
    return call;
}

static int requests_file(const struct look_call *call, int *ret, struct error *err)
{
    _cleanup_close_ int fd = memfd_create("requests", MFD_CLOEXEC);
    int r = fd < 0 ? -errno : file_write_all(fd, call->requests.data, call->requests.length);

    if (r == 0 && lseek(fd, 0, SEEK_SET) < 0)
        r = -errno;
    if (r < 0)
        return error_errno(err, -r, "make a file in memory");
    *ret = steal_fd(&fd);
    return 0;
}

/* Takes the call over. */
static int run_child(struct engine *engine, struct look_call *call, struct error *err)
{
    _cleanup_close_ int requests = -1;
    int r = requests_file(call, &requests, err);
    const int fds[] = {requests, call->output_fd, call->complaint_fd};
    char *const argv[] = {(char *)"cloched", (char *)LOOK_OPTION, NULL};
    struct process_spec spec = {
        .path = "/proc/self/exe",
        .argv = argv,
        .fds = fds,
        .fds_count = ARRAY_SIZE(fds),
        .directory = "/",
    };
    struct process process;
    unsigned limit = call->mounts ? VOLUMES_TIMEOUT_SECONDS : PATHS_TIMEOUT_SECONDS;

    if (r == 0 && (call->output_fd < 0 || call->complaint_fd < 0))
        r = error_errno(err, errno, "make a file in memory");
    if (r == 0)
        r = process_spawn(&spec, &process, err);
    if (r < 0) {
        call_free(call);
        return r;
    }
    return loop_watch_child(engine->loop, &process, limit * 1000, on_ended, call, err);
}

int look_start(struct engine *engine, const struct api_container_spec *effective, look_done done,
               void *data, struct error *err)
{
    struct look_call *call = call_new(done, data);

    ask_mounts(call, engine, effective);
    ask_devices(call, effective);
    ask_limits(call, effective->resources);
    return run_child(engine, call, err);
}

int look_for_sources(struct engine *engine, const struct api_container_spec *spec, look_done done,
                     void *data, struct error *err)
{
    struct look_call *call = call_new(done, data);

    for (size_t i = 0; i < spec->mounts_count; i++) {
        if (wants_source(spec->mounts[i]))
            ask(call, LOOK_SOURCE, (struct subject){.path = spec->mounts[i]->source});
    }
    return run_child(engine, call, err);
}

bool look_wants_volumes(const struct api_container_spec *spec)
{
    for (size_t i = 0; i < spec->mounts_count; i++) {
        if (volume_has_options(spec->mounts[i]))
            return true;
    }
    return false;
}

int look_for_volumes(struct engine *engine, const struct api_container_spec *spec, look_done done,
                     void *data, struct error *err)
{
    struct look_call *call = call_new(done, data);

    for (size_t i = 0; i < spec->mounts_count; i++) {
        if (volume_has_options(spec->mounts[i]))
            ask_volume(call, engine, spec->mounts[i]);
    }
    return run_child(engine, call, err);
}
