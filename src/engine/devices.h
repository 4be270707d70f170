/*
 * Words about devices, and the devices that were found. Pure.
 */
#ifndef ENGINE_DEVICES_H
#define ENGINE_DEVICES_H

#include <stdbool.h>
#include <stdint.h>

#include <base/error.h>
#include <schema/management.h>

enum { DEVICE_ACCESS_MAX = 3 };

/* Letters of r, w and m, each once at most. */
bool device_access_valid(const char *text);

/* "c 1:3 rwm", "a *:* r": -1 for any number; access has room for DEVICE_ACCESS_MAX + 1. -EINVAL. */
int device_rule_parse(const char *text, char *ret_type, int64_t *ret_major, int64_t *ret_minor,
                      char *ret_access, struct error *err);

/* -EINVAL: devices or deviceCgroupRules make no sense. */
int devices_check(const struct api_container_spec *spec, struct error *err);

#endif
