/*
 * Memory of a program that waits most of the time.
 */
#ifndef BASE_MEMORY_H
#define BASE_MEMORY_H

/* One heap for all threads, where the C library would make one for each: for a program whose
 * threads allocate little. Called before there are any. */
void memory_use_one_heap(void);

/* Gives back what is not in use: free pieces of the heap, and the pages of programs and libraries
 * that were mapped to run once. What is needed again comes back from the page cache by a fault, so
 * for a moment at which nothing is to be done. Half a millisecond. */
void memory_give_back(void);

#endif
