#ifndef ENGINE_ADOPT_H
#define ENGINE_ADOPT_H

#include "internal.h"

/* Connects to the monitors of containers that ran and reserves their places in the network. Blocks
 * for local sockets; before the network is set up and before the loop runs. */
void adopt_connect_all(struct engine *engine);

/* Makes every container's state true; runs the loop until it is, or for some seconds. */
void adopt_settle_all(struct engine *engine);

#endif
