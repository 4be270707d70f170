/*
 * An instance of Cloche: every name it uses on the machine derives from the instance's name, so
 * that a private instance lives beside the machine's own and can remove all of itself.
 */
#ifndef BASE_INSTANCE_H
#define BASE_INSTANCE_H

#include <stdbool.h>

#include <base/error.h>

enum { INSTANCE_NAME_MAX = 8 }; /* "clo-" + name + room for a suffix in IFNAMSIZ (16) */

/*
 *                 default instance        instance "try"
 * root            /var/lib/cloche         /var/lib/cloche-try
 * run             /run/cloche             /run/cloche-try
 * socket          /run/cloche/cloche.sock /run/cloche-try/cloche.sock
 * bridge          cloche0                 clo-try
 * nft_table       cloche                  cloche_try
 * cgroup_parent   cloche                  cloche-try
 *
 * An ordinary user who has no access to the machine's socket of that name has instances of his own,
 * where $XDG_RUNTIME_DIR is set: root is $XDG_DATA_HOME/cloche (or ~/.local/share/cloche), run is
 * $XDG_RUNTIME_DIR/cloche, with -try behind both.
 */
struct instance {
    char *name; /* "" for the default instance */
    char *root;
    char *run;
    char *socket;
    char *bridge;
    char *nft_table;
    char *cgroup_parent;
    bool of_user; /* an ordinary user's own */
};

/* name: 1 to INSTANCE_NAME_MAX of [a-z0-9-], starting with a letter or digit; NULL or "":
 * $CLOCHE_INSTANCE, else the default instance. $CLOCHE_ROOT and $CLOCHE_RUN replace root and run,
 * $CLOCHE_SOCKET the socket. */
int instance_init(struct instance *instance, const char *name, struct error *err);
void instance_finish(struct instance *instance);

#endif
