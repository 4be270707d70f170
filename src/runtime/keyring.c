#include <errno.h>
#include <linux/keyctl.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/text.h>

#include "keyring.h"
#include "labels.h"

/* linux/keyctl.h lacks them. What a session keyring is made with, and the right to find it by its
 * name. */
enum {
    POSSESSOR_ALL = 0x3f000000,
    USER_VIEW_READ_LINK = 0x00130000,
    USER_SEARCH = 0x00080000,
    OTHER_SEARCH = 0x00000008,
};

static int join(enum keyring_use use, const char *id, bool own_users, struct error *err)
{
    _cleanup_free_ char *name = xasprintf("_ses.%s", id);
    long keyring = syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name);
    int permissions =
        POSSESSOR_ALL | USER_VIEW_READ_LINK | (own_users ? OTHER_SEARCH : USER_SEARCH);

    if (keyring < 0 && errno == ENOSYS)
        return 0;
    if (keyring < 0) {
        int r = error_errno(err, errno, "create a session keyring");
        error_hint(err, "--no-new-keyring does without it");
        return r;
    }
    if (use == KEYRING_MAKE && syscall(SYS_keyctl, KEYCTL_SETPERM, keyring, permissions) < 0)
        return error_errno(err, errno, "let others find the session keyring %s", name);
    return 0;
}

int keyring_enter(enum keyring_use use, const char *id, bool own_users, int proc_fd,
                  const char *selinux_label, struct error *err)
{
    bool labelled = !text_empty(selinux_label);
    int r = labelled ? labels_set_keys(proc_fd, selinux_label, err) : 0;

    if (r == 0)
        r = join(use, id, own_users, err);
    if (r == 0 && labelled)
        r = labels_set_keys(proc_fd, NULL, err);
    return r;
}
