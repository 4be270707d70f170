/*
 * The member Health of State in docker's container document.
 */
#ifndef DOOR_HEALTH_H
#define DOOR_HEALTH_H

#include <schema/json.h>
#include <schema/management.h>

void write_health(struct json_writer *writer, const struct api_health *health); /* NULL: nothing */

#endif
