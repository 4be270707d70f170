/*
 * Exchanging the file that a running program was executed from, without executing it again.
 */
#ifndef RUNTIME_SEAL_IN_PLACE_H
#define RUNTIME_SEAL_IN_PLACE_H

/* Makes /proc/self/exe, and the mappings of the program, refer to the same file as seen through
 * another mount. mount_fd: that file (O_PATH will do). argv: as given to main. For a process of one
 * thread. -errno when that cannot be done here (CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE, and a
 * kernel with checkpointing, are needed); the program goes on as before then. */
int seal_in_place(int mount_fd, char **argv);

#endif
