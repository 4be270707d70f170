#ifndef RUNTIME_SEAL_H
#define RUNTIME_SEAL_H

/* Closes what cloche_runtime_seal keeps open: the mount that the program's file is on. The last of
 * the processes that have it waits until no processor of the machine looks at that mount any more,
 * so the child calls it at once and the parent when it has nothing else to do than wait for the
 * child. Optional: it ends with the process, too. Does nothing a second time. */
void seal_release(void);

/* Moves it out of the way of descriptors below `end` that a program is to have. */
void seal_keep_off(int end);

#endif
