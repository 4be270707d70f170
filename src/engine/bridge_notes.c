#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/log.h>
#include <base/text.h>
#include <net/net.h>

#include "bridge_notes.h"
#include "networks.h"

static char *note_path(const struct engine *engine, const char *bridge)
{
    return xasprintf("%s/bridges%s%s", engine->instance->run, bridge ? "/" : "",
                     bridge ? bridge : "");
}

int bridge_note(const struct engine *engine, const char *bridge, struct error *err)
{
    _cleanup_free_ char *folder = note_path(engine, NULL), *path = note_path(engine, bridge);

    if (mkdir(folder, 0700) < 0 && errno != EEXIST)
        return error_errno(err, errno, "%s", folder);
    _cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    return fd < 0 ? error_errno(err, errno, "%s", path) : 0;
}

void bridge_note_remove(const struct engine *engine, const char *bridge)
{
    _cleanup_free_ char *path = note_path(engine, bridge);

    (void)unlink(path);
}

static bool has_record(const struct engine *engine, const char *bridge)
{
    for (size_t i = 0; i < engine->networks_count; i++) {
        if (text_equal(engine->networks[i]->record->bridge, bridge))
            return true;
    }
    return false;
}

void bridge_notes_sweep(struct engine *engine)
{
    _cleanup_free_ char *folder = note_path(engine, NULL);
    DIR *notes = opendir(folder);

    for (struct dirent *note; notes && (note = readdir(notes));) {
        _cleanup_error_ struct error err = ERROR_INIT;

        if (note->d_name[0] == '.' || has_record(engine, note->d_name))
            continue;
        if (net_link_delete(note->d_name, &err) < 0)
            log_failure(LOG_WARNING, &err, "the bridge %s of a network that is not there",
                        note->d_name);
        else
            bridge_note_remove(engine, note->d_name);
    }
    if (notes)
        closedir(notes);
}
