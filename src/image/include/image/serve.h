/*
 * cloche-image and cloche-registry themselves: everything their main() does.
 */
#ifndef IMAGE_SERVE_H
#define IMAGE_SERVE_H

/* Does what the request on IMAGE_FD_CONTROL asks for, in a jail, with the descriptors of
 * image/descriptors.h, and says on the same socket what came of it. Returns the exit code. Never
 * returns to a state from which another request could be served. */
int image_serve(void);

/* The same for requests that take a network (pull, push, search, login, fetch). */
int image_serve_registry(void);

#endif
