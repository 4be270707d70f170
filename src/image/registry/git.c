/*
 * A repository of git as a build's context, by the machine's git in a jail that has the network,
 * the machine's programs and the staging folder, no capabilities and nothing of the machine's
 * configuration:
 *
 *   init       an empty repository in git/, without the templates, whose hooks would be executed
 *   fetch      the commit alone; where a server cannot do that (dumb HTTP) with its history; a
 *              commit that servers do not give by its name from all branches
 *   checkout   and the submodules, as docker does it, over the same protocols
 *   take over  the wanted folder's files are moved to context/
 *
 * Meanwhile the size of git/ is looked at: packs and trees are bombs as easily as archives.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/file.h>
#include <base/text.h>
#include <image/descriptors.h>

#include "git_secrets.h"
#include "requests.h"
#include "worker.h"

enum {
    PATIENCE = 60,           /* seconds in which nothing comes and nothing grows */
    GIT_SECONDS_MAX = 3600,  /* of all of it, where nothing else is said */
    GIT_FILES_MAX = 1000000, /* with those of .git, likewise */
    OUTPUT_MAX = 16 * 1024,  /* the last bytes of what git says */
    LOOK_INTERVAL = 1,       /* seconds between looks at the size, more where a look takes long */
    LOOK_PART = 10,          /* of the time may be spent on looking: one in so many */
    WORDS_MAX = 40,
};
#define GIT_BYTES_MAX (16ULL << 30) /* on the disk, with .git, likewise */

static const char program[] = "/usr/bin/git";
static const char place[] = "/staging/git";

struct clone {
    const struct image_worker_clone *request;
    char *url; /* without user and password */
    char **environment;
    time_t begun, patience, grown; /* grown: when something came last */
    time_t seconds_max;
    time_t next_look;
    uint64_t bytes;
    struct buffer output;
    const char *problem; /* why git was ended */
};

/* nftw has no argument for its caller. */
static struct {
    uint64_t bytes, files;
    uint64_t bytes_max, files_max;
} found;

static time_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec;
}

static int count(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    found.bytes += (uint64_t)status->st_blocks * 512;
    found.files++;
    return found.bytes > found.bytes_max || found.files > found.files_max;
}

/* --- watching git ----------------------------------------------------------------------------- */

static void look(struct clone *clone, bool at_end)
{
    time_t started = now();

    if (started < clone->next_look && !at_end)
        return;
    found.bytes = found.files = 0;
    if (nftw(place, count, 64, FTW_PHYS) == 1)
        clone->problem = found.files > found.files_max
                             ? "it has too many files (gitFiles in cloched.conf)"
                             : "it is too large (gitBytes in cloched.conf)";
    if (found.bytes > clone->bytes)
        clone->grown = now();
    clone->bytes = found.bytes;
    message_progress("Cloning", found.bytes);
    clone->next_look = now() + LOOK_INTERVAL + (now() - started) * LOOK_PART;
}

static void check_time(struct clone *clone)
{
    if (now() - clone->begun > clone->seconds_max)
        clone->problem = "it takes too long (gitSeconds in cloched.conf)";
    else if (now() - clone->grown > clone->patience)
        clone->problem = "the server has said nothing for too long";
}

/* false: the end. */
static bool take_output(struct clone *clone, int fd)
{
    char block[4096];
    ssize_t n = read(fd, block, sizeof(block));

    if (n < 0 && errno == EINTR)
        return true;
    if (n <= 0)
        return false;
    clone->grown = now();
    buffer_append(&clone->output, block, (size_t)n);
    if (clone->output.length > OUTPUT_MAX)
        buffer_consume(&clone->output, clone->output.length - OUTPUT_MAX / 2);
    return true;
}

static int watch(struct clone *clone, pid_t child, int fd)
{
    struct pollfd output = {fd, POLLIN, 0};
    int status = 0;

    clone->grown = now();
    for (bool more = true; more && !clone->problem;) {
        int n = poll(&output, 1, LOOK_INTERVAL * 1000);
        if (n > 0)
            more = take_output(clone, fd);
        look(clone, !more);
        if (more)
            check_time(clone);
    }
    if (clone->problem)
        kill(child, SIGKILL);
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

/* --- executing it ----------------------------------------------------------------------------- */

/* Nobody is there to be asked, and nothing of the machine or of its users is read. git takes as
 * protocols only those of the list, for submodules and redirections too. */
static char *const fixed_environment[] = {
    "PATH=/usr/bin:/bin",
    "HOME=/nonexistent",
    "LC_ALL=C",
    "TMPDIR=/staging",
    "GIT_CONFIG_NOSYSTEM=1",
    "GIT_CONFIG_GLOBAL=/dev/null",
    "GIT_ALLOW_PROTOCOL=http:https:git",
    "GIT_TERMINAL_PROMPT=0",
    "GIT_ASKPASS=/usr/bin/false",
    "GIT_LFS_SKIP_SMUDGE=1",
    "GIT_AUTHOR_NAME=x",
    "GIT_AUTHOR_EMAIL=x@localhost",
    "GIT_COMMITTER_NAME=x",
    "GIT_COMMITTER_EMAIL=x@localhost",
    NULL,
};

static int start(const struct clone *clone, char *const *words, int output_fd, pid_t *ret,
                 struct error *err)
{
    posix_spawn_file_actions_t actions;

    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, output_fd, 1);
    posix_spawn_file_actions_adddup2(&actions, output_fd, 2);
    posix_spawn_file_actions_addclosefrom_np(&actions, 3);
    int r = posix_spawn(ret, program, &actions, NULL, words, clone->environment);
    posix_spawn_file_actions_destroy(&actions);
    return r ? error_errno(err, r, "execute %s", program) : 0;
}

/* Among what git says is why it failed: the first complaint is the cause of the others. */
static const char *complaint(struct clone *clone)
{
    char *last = NULL, *rest = NULL;
    char *text = clone->output.length ? clone->output.data : NULL;

    for (char *line = text ? strtok_r(text, "\r\n", &rest) : NULL; line;
         line = strtok_r(NULL, "\r\n", &rest)) {
        if (text_starts_with(line, "fatal: ") || text_starts_with(line, "error: "))
            return line;
        last = line;
    }
    return last ? last : "it says nothing";
}

/* words: after the fixed ones, NULL at the end. 0: it succeeded; -EPROTO: it did not. */
static int git(struct clone *clone, char *const *words, struct error *err)
{
    char *all[WORDS_MAX] = {"git",
                            "-C",
                            (char *)place,
                            "-c",
                            "core.hooksPath=/dev/null",
                            "-c",
                            "core.fsmonitor=false",
                            "-c",
                            "gc.auto=0",
                            "-c",
                            "maintenance.auto=false",
                            "-c",
                            "submodule.fetchJobs=1",
                            "-c",
                            "advice.detachedHead=false"};
    size_t length = strv_length(all);
    int pair[2];
    pid_t child;

    for (size_t i = 0; words[i] && length < WORDS_MAX - 1; i++)
        all[length++] = words[i];
    clone->output.length = 0;
    if (pipe2(pair, O_CLOEXEC) < 0)
        return error_errno(err, errno, "make a pipe");
    int r = start(clone, all, pair[1], &child, err);
    close(pair[1]);
    int code = r == 0 ? watch(clone, child, pair[0]) : 0;
    close(pair[0]);
    if (r == 0 && clone->problem)
        return error_set(err, -EFBIG, "%s: %s", clone->url, clone->problem);
    return code ? error_set(err, -EPROTO, "%s: git: %s", clone->url, complaint(clone)) : r;
}

#define GIT(clone, err, ...) git(clone, (char *const[]){__VA_ARGS__, NULL}, err)

/* --- the steps -------------------------------------------------------------------------------- */

static bool is_commit(const char *ref)
{
    size_t length = strlen(ref);

    return length >= 4 && length <= 64 && text_is_hex(ref, length);
}

/* *ret: what to check out. */
static int fetch(struct clone *clone, const char **ret, struct error *err)
{
    const char *ref = clone->request->ref ? clone->request->ref : "HEAD";
    _cleanup_error_ struct error first = ERROR_INIT;
    int r =
        GIT(clone, &first, "fetch", "--progress", "--no-tags", "--depth=1", "origin", (char *)ref);

    *ret = "FETCH_HEAD";
    if (r == -EPROTO) {
        error_finish(&first);
        r = GIT(clone, &first, "fetch", "--progress", "--no-tags", "origin", (char *)ref);
    }
    if (r == -EPROTO && is_commit(ref)) {
        error_finish(&first);
        r = GIT(clone, &first, "fetch", "--progress", "--tags", "origin",
                "+refs/heads/*:refs/remotes/origin/*");
        *ret = ref;
    }
    return r < 0 ? error_move(err, &first) : 0;
}

static int check_out(struct clone *clone, const char *what, struct error *err)
{
    int r = GIT(clone, err, "checkout", "--quiet", "--detach", (char *)what);

    if (r == 0 && faccessat(IMAGE_FD_STAGING, "git/.gitmodules", F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
        r = GIT(clone, NULL, "submodule", "update", "--init", "--recursive", "--depth=1",
                "--progress");
        if (r == -EPROTO)
            r = GIT(clone, err, "submodule", "update", "--init", "--recursive", "--progress");
        else if (r < 0)
            error_set(err, r, "%s: %s", clone->url,
                      clone->problem ? clone->problem : "fetch the submodules");
    }
    return r;
}

static int read_commit(struct clone *clone, char **ret, struct error *err)
{
    int r = GIT(clone, err, "rev-parse", "HEAD");
    const char *text = buffer_text(&clone->output);

    if (r < 0)
        return r;
    _cleanup_free_ char *commit = xstrndup(text, strcspn(text, "\r\n"));
    if (!is_commit(commit))
        return error_set(err, -EPROTO, "%s: git does not say its commit", clone->url);
    *ret = steal_ptr(commit);
    return 0;
}

/* All but .git of the folder, which may be reached through links inside the repository. */
static int take_over(const struct clone *clone, struct error *err)
{
    const char *folder = clone->request->folder ? clone->request->folder : ".";
    _cleanup_close_ int root =
        openat(IMAGE_FD_STAGING, "git", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (root < 0 || (mkdirat(IMAGE_FD_STAGING, "context", 0700) < 0))
        return error_errno(err, errno, "create a folder in staging");
    int fd = file_open_in_root(root, folder, O_RDONLY | O_DIRECTORY, 0);
    if (fd == -ENOTDIR)
        return error_set(err, -ENOTDIR, "Error setting git context, not a directory: %s", folder);
    if (fd < 0)
        return error_errno(err, -fd, "%s: open its folder '%s'", clone->url, folder);
    _cleanup_close_ int context =
        openat(IMAGE_FD_STAGING, "context", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    _cleanup_closedir_ DIR *directory = fdopendir(fd);
    struct dirent *entry;
    while (directory && (entry = readdir(directory))) {
        if (text_equal(entry->d_name, ".") || text_equal(entry->d_name, "..") ||
            text_equal(entry->d_name, ".git"))
            continue;
        if (renameat(fd, entry->d_name, context, entry->d_name) < 0)
            return error_errno(err, errno, "take over %s", entry->d_name);
    }
    return file_remove_tree_at(IMAGE_FD_STAGING, "git", err);
}

static int check_request(const struct image_worker_clone *request, struct error *err)
{
    static const char *const protocols[] = {"http://", "https://", "git://"};
    const char *ref = request->ref;
    size_t i = 0;

    while (i < ARRAY_SIZE(protocols) && !text_starts_with(request->url, protocols[i]))
        i++;
    if (i == ARRAY_SIZE(protocols))
        return error_set(err, -EINVAL, "'%.200s' is no address of http, https or git",
                         request->url);
    /* One name and nothing that git takes for an option, several, or a rule for names. */
    if (ref &&
        (text_empty(ref) || ref[0] == '-' || ref[0] == '+' || strpbrk(ref, " \t\r\n:*?[\\^~")))
        return error_set(err, -EINVAL, "'%.200s' is no branch, tag or commit", ref);
    if (access(program, X_OK) == 0)
        return 0;
    return error_set(err, -ENOENT,
                     "repositories are fetched by git, which this machine lacks (%s): install the "
                     "package git, or clone it elsewhere and build the folder",
                     program);
}

static int run_steps(struct clone *clone, char **ret_commit, struct error *err)
{
    const char *what = NULL;

    if (mkdirat(IMAGE_FD_STAGING, "git", 0700) < 0)
        return error_errno(err, errno, "create a folder in staging");
    int r = GIT(clone, err, "init", "--quiet", "--template=");
    if (r == 0)
        r = GIT(clone, err, "remote", "add", "origin", clone->url);
    if (r == 0)
        r = fetch(clone, &what, err);
    if (r == 0)
        r = check_out(clone, what, err);
    if (r == 0)
        r = read_commit(clone, ret_commit, err);
    return r < 0 ? r : take_over(clone, err);
}

int registry_clone(const struct image_worker_clone *request, struct image_worker_result **ret,
                   struct error *err)
{
    const struct jail jail = {.has_network = true, .has_staging = true, .has_programs = true};
    const uint64_t bytes_max = request->has_bytes ? request->bytes : GIT_BYTES_MAX;
    const struct rlimit size = {bytes_max, bytes_max};
    struct clone clone = {
        .request = request,
        .begun = now(),
        .patience = request->has_patience_seconds ? request->patience_seconds : PATIENCE,
        .seconds_max = request->has_seconds ? request->seconds : GIT_SECONDS_MAX,
        .environment = strv_copy(fixed_environment),
    };
    char *commit = NULL;
    int r = check_request(request, err);

    found.bytes_max = bytes_max;
    found.files_max = request->has_files ? request->files : GIT_FILES_MAX;
    if (r == 0)
        r = git_hide_secrets(request->url, request->proxy, &clone.url, &clone.environment, err);
    if (r == 0)
        r = jail_enter(&jail, err);
    if (r == 0 && setrlimit(RLIMIT_FSIZE, &size) < 0)
        r = error_errno(err, errno, "limit the size of files");
    umask(022);
    if (r == 0)
        r = run_steps(&clone, &commit, err);
    buffer_finish(&clone.output);
    strv_free(clone.environment);
    free(clone.url);
    if (r < 0)
        return r;
    struct image_worker_result *result = xnew(struct image_worker_result);
    result->cloned = xnew(struct image_worker_cloned);
    result->cloned->commit = commit;
    *ret = result;
    return 0;
}
