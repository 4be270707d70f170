/*
 * docker's description of a container as ours. What is taken over is taken out of docker's, so that
 * nothing is copied.
 */
#ifndef DOOR_DOCKER_CREATE_H
#define DOOR_DOCKER_CREATE_H

#include <base/error.h>
#include <schema/docker.h>
#include <schema/management.h>

/* -EINVAL with what makes no sense. */
int docker_spec_of(struct docker_container_config *config, struct api_container_spec **ret,
                   struct error *err);
/* *ret NULL: nothing is limited. */
int docker_take_resources(struct docker_host_config *from, struct api_resources **ret,
                          struct error *err);
/* NULL: none. */
struct api_restart_policy *docker_restart_policy_of(struct docker_restart_policy *from);
void docker_take_endpoint(struct docker_endpoint *from, struct api_endpoint *to);

#endif
