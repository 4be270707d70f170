/* The name that a file gets where nobody says one: docker's rules for ADD of an address. */
#ifndef REGISTRY_FILENAME_H
#define REGISTRY_FILENAME_H

enum { FILENAME_MAX_BYTES = 255 };

/* The last component of the address's path (decoded; "" or NULL: it has none), else what
 * Content-Disposition says (NULL: nothing). Owned; NULL: neither gives a name that can stand as one
 * component of a path. */
char *filename_choose(const char *path, const char *disposition);

#endif
