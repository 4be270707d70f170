/*
 * Lists of CPUs or memory nodes as the kernel writes them ("0-3,8"), as bit masks for system calls.
 */
#ifndef RUNTIME_ID_LIST_H
#define RUNTIME_ID_LIST_H

#include <stddef.h>

enum {
    ID_LIST_WORD_BITS = 8 * sizeof(unsigned long),
    ID_LIST_CPUS_MAX = 8192,  /* CONFIG_NR_CPUS is at most that on any architecture */
    ID_LIST_NODES_MAX = 1024, /* MAX_NUMNODES with CONFIG_NODES_SHIFT=10, the most there is */
};

/* Sets the bits of the list in mask, an array of at least max bits, which is cleared before. White
 * space around numbers and empty parts are taken, as cpuset(7) takes them. -EINVAL: no list;
 * -ERANGE: a number of max or more. No message: the caller knows the field. */
int id_list_parse(const char *text, unsigned long *mask, size_t max);

#endif
