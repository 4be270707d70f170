#include <jail/root.h>

#include <errno.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

int jail_change_root(struct error *err)
{
    /* "." twice stacks the old root over the new one, where it is taken off (pivot_root(2)). */
    if (syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
        return error_errno(err, errno, "jail: change the root");
    if (mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
              NULL) < 0)
        return error_errno(err, errno, "jail: make the root read-only");
    return 0;
}
