/*
 * Memory for what is kept in memory of what is on media, of all volumes of the process together:
 * how much that is, is the stick's to choose. Where it would be too much that is said, or what was
 * not used lately is dropped, in place of the process being killed. Any thread.
 */
#ifndef BLOCK_BUDGET_H
#define BLOCK_BUDGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <base/error.h>

/* Kept: can be had again from the medium, and is dropped when there is too much of it. Fixed:
 * cannot, as long as it is used. */
enum budget_use { BUDGET_KEPT, BUDGET_FIXED };

/* Bytes; 0: any number, as in the beginning. */
void budget_set(uint64_t bytes);
uint64_t budget_used(void);

/* Whether so many bytes more are left. -ENOMEM; what: of the message, that needs them. */
int budget_check(uint64_t bytes, const char *what, struct error *err);
/* Half of what can be dropped is there: some of it should be. */
bool budget_is_tight(void);

/* As xrealloc(), xcalloc() and free(), counted. More than is left is had nevertheless. */
void *budget_resize(enum budget_use use, void *data, size_t count, size_t size);
void *budget_new(enum budget_use use, size_t count, size_t size);
void budget_free(enum budget_use use, void *data);
/* What was had otherwise is counted, until budget_free(). */
void *budget_count(enum budget_use use, void *data);

#endif
