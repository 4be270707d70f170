#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/file.h>
#include <base/log.h>
#include <base/process.h>
#include <base/text.h>

#include "apparmor.h"
#include "internal.h"
#include "security.h"

enum { MAP_MAX = 65536, COMPLAINTS_MAX = 4096, PROFILES_MAX = 4 * 1024 * 1024 };

static const char *const parsers[] = {"/usr/sbin/apparmor_parser", "/sbin/apparmor_parser"};

/*
 * What a container's root could change the machine by, should its namespaces and capabilities let
 * it: mounts, the kernel's parameters, firmware, and processes outside. A rule that denies wins
 * over all that allow. Without an abi the parser would take the kernel's newest, whose further
 * kinds of things are denied where no rule names them.
 */
static const char profile[] =
    "profile " APPARMOR_DEFAULT_PROFILE " flags=(attach_disconnected,mediate_deleted) {\n"
    "  file,\n"
    "  network,\n"
    "  capability,\n"
    "  umount,\n"
    "  unix,\n"
    "  signal (receive) peer=unconfined,\n"
    "  signal (send, receive) peer=" APPARMOR_DEFAULT_PROFILE ",\n"
    "  ptrace (trace, read, tracedby, readby) peer=" APPARMOR_DEFAULT_PROFILE ",\n"
    "\n"
    "  deny mount,\n"
    "  deny /proc/* w,\n"
    "  deny /proc/{sysrq-trigger,kcore,kmem,mem} rwklx,\n"
    "  deny /proc/{acpi,bus,driver,dynamic_debug,fs,irq,mtrr,scsi,tty}/** wklx,\n"
    /* Of a container's own are only msg*, sem and shm* of kernel, and net. */
    "  deny /proc/sys/{abi,crypto,debug,dev,fs,sunrpc,user,vm,xen}/** wklx,\n"
    "  deny /proc/sys/kernel/{[^ms]**,m[^s]**,s[^eh]**,se[^m]**,sh[^m]**} wklx,\n"
    "  deny /sys/{block,bus,class,dev,devices,hypervisor,module,power}/** wklx,\n"
    "  deny /sys/fs/[^c]** wklx,\n"
    "  deny /sys/firmware/** rwklx,\n"
    "  deny /sys/kernel/security/** rwklx,\n"
    "  deny /sys/kernel/[^s]** wklx,\n"
    "}\n";

static const char *find_parser(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(parsers); i++)
        if (access(parsers[i], X_OK) == 0)
            return parsers[i];
    return NULL;
}

/* The kernel takes profiles from nobody else: not from root of a user namespace. */
static bool is_root_of_the_machine(void)
{
    _cleanup_free_ char *map = NULL;
    unsigned inside, outside, count;

    return file_read_at(AT_FDCWD, "/proc/self/uid_map", MAP_MAX, &map, NULL, NULL) == 0 &&
           sscanf(map, "%u %u %u", &inside, &outside, &count) == 3 && count == UINT32_MAX;
}

static bool look(void)
{
    _cleanup_free_ char *enabled = NULL;

    if (!is_root_of_the_machine())
        return false;
    if (file_read_at(AT_FDCWD, "/sys/module/apparmor/parameters/enabled", 16, &enabled, NULL,
                     NULL) < 0 ||
        enabled[0] != 'Y' || access("/sys/kernel/security/apparmor/.replace", F_OK) < 0)
        return false;
    if (find_parser())
        return true;
    log_warning("this machine has AppArmor, but no apparmor_parser: containers are not confined "
                "by the profile " APPARMOR_DEFAULT_PROFILE);
    return false;
}

/* Containers are prepared by several threads. */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool is_there;

static void look_once(void)
{
    is_there = look();
}

bool apparmor_is_there(void)
{
    pthread_once(&once, look_once);
    return is_there;
}

/* The profile as the parser's standard input. */
static int open_text(struct error *err)
{
    const char *abi = access("/etc/apparmor.d/abi/3.0", R_OK) == 0 ? "abi <abi/3.0>,\n" : "";
    _cleanup_close_ int fd = memfd_create("apparmor", MFD_CLOEXEC);

    if (fd < 0 || file_write_all(fd, abi, strlen(abi)) < 0 ||
        file_write_all(fd, profile, strlen(profile)) < 0 || lseek(fd, 0, SEEK_SET) < 0)
        return error_errno(err, errno, "write the AppArmor profile");
    return steal_fd(&fd);
}

static int fail(int status, int complaints_fd, struct error *err)
{
    char text[COMPLAINTS_MAX];
    ssize_t n = pread(complaints_fd, text, sizeof(text) - 1, 0);

    text[n > 0 ? n : 0] = '\0';
    for (size_t length = strlen(text); length && text[length - 1] == '\n';)
        text[--length] = '\0';
    error_set(err, -EIO, "load the AppArmor profile " APPARMOR_DEFAULT_PROFILE ": exit code %d: %s",
              process_exit_code(status), text_make_harmless(text, ""));
    error_hint(err, "--security-opt apparmor=unconfined goes without");
    return -EIO;
}

static int load(struct error *err)
{
    _cleanup_close_ int text_fd = open_text(err);
    _cleanup_close_ int complaints_fd = memfd_create("apparmor_parser", MFD_CLOEXEC);
    const int fds[] = {text_fd, -1, complaints_fd};
    char *argv[] = {"apparmor_parser", "--replace", "--skip-cache", NULL};
    struct process_spec spec = {
        .path = find_parser(), .argv = argv, .fds = fds, .fds_count = ARRAY_SIZE(fds)};
    struct process process;
    int status = 0;

    if (text_fd < 0 || complaints_fd < 0)
        return text_fd < 0 ? text_fd : error_errno(err, errno, "make a file in memory");
    if (!spec.path)
        return error_set(err, -ENOENT, "apparmor_parser is gone");
    int r = process_spawn(&spec, &process, err);
    if (r == 0)
        r = process_wait(&process, &status, err);
    if (r < 0)
        return r;
    return process_exit_code(status) ? fail(status, complaints_fd, err) : 0;
}

/* It may have been unloaded since by the machine's administrator or aa-teardown. Where that cannot
 * be seen it counts as unloaded: loading it once more changes nothing. */
static bool is_loaded(void)
{
    static const char line[] = APPARMOR_DEFAULT_PROFILE " (";
    _cleanup_free_ char *profiles = NULL;

    if (file_read_at(AT_FDCWD, "/sys/kernel/security/apparmor/profiles", PROFILES_MAX, &profiles,
                     NULL, NULL) < 0)
        return false;
    for (const char *at = profiles; at; at = strchr(at, '\n')) {
        at += *at == '\n';
        if (text_starts_with(at, line))
            return true;
    }
    return false;
}

static bool is_wanted(const struct api_container_spec *spec)
{
    struct security_options options;

    return security_options_read(spec, &options, NULL) == 0 && text_empty(options.apparmor) &&
           !spec->privileged;
}

int apparmor_load_default(const struct api_container_spec *spec, const char **ret,
                          struct error *err)
{
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    static bool loaded;
    int r = 0;

    if (!is_wanted(spec) || !apparmor_is_there()) {
        *ret = NULL;
        return 0;
    }
    pthread_mutex_lock(&mutex);
    if (!loaded || !is_loaded())
        r = load(err);
    loaded = r == 0;
    pthread_mutex_unlock(&mutex);
    if (r == 0)
        *ret = APPARMOR_DEFAULT_PROFILE;
    return r;
}
