/*
 * Allocation that does not return NULL.
 *
 * Linux overcommits: a small allocation does not fail, the OOM killer comes instead. Every length
 * that comes from outside is checked against a named limit before it gets here, so a failure means
 * a broken program; it ends with abort().
 */
#ifndef BASE_ALLOC_H
#define BASE_ALLOC_H

#include <stdarg.h>
#include <stddef.h>

#include <base/cleanup.h>

/* All results are owned by the caller and released with free(). */
void *xmalloc(size_t size);
void *xcalloc(size_t count, size_t size); /* zeroed; the product is checked */
void *xrealloc(void *memory, size_t count, size_t size);
char *xstrdup(const char *text); /* NULL in, NULL out */
char *xstrndup(const char *text, size_t length);
void *xmemdup(const void *data, size_t length);
char *xasprintf(const char *format, ...) _printf_(1, 2);
char *xvasprintf(const char *format, va_list args);

#define xnew(type) ((type *)xcalloc(1, sizeof(type)))
#define xnew_array(type, count) ((type *)xcalloc((count), sizeof(type)))

#endif
