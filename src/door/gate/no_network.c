/*
 * In place of network.c, for a program that listens at Unix sockets alone.
 */
#include "gate.h"

const struct gate_network *const gate_network = NULL;
