#ifndef CLOCHE_LIBEXEC_H
#define CLOCHE_LIBEXEC_H

/* The path of a program that this one starts: in $CLOCHE_LIBEXEC, beside this program, or where it
 * was installed. Owned by the caller. */
char *libexec_find(const char *name);

#endif
