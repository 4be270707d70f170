/*
 * The handlers, by request.
 */
#ifndef DOOR_DOCKER_HANDLERS_H
#define DOOR_DOCKER_HANDLERS_H

#include "exchange.h"

/* Of times as clients send them: "1700000000", "1700000000.000000001", or RFC 3339. Nanoseconds
 * since 1970. false: it is none. */
bool docker_time_parse(const char *text, int64_t *ret);

/* system.c */
void docker_ping(struct exchange *exchange);
void docker_version(struct exchange *exchange);
void docker_info(struct exchange *exchange);
void docker_auth(struct exchange *exchange);

/* swarm.c */
void docker_swarm_leave(struct exchange *exchange);
void docker_swarm_none(struct exchange *exchange);
void docker_swarm_begin(struct exchange *exchange);
void docker_plugin_list(struct exchange *exchange);

/* events.c */
void docker_events(struct exchange *exchange);

/* create.c */
void docker_container_create(struct exchange *exchange);

/* summary.c */
struct api_container_summary;
void docker_write_summary(struct json_writer *writer,
                          const struct api_container_summary *container);

/* containers.c */
void docker_container_list(struct exchange *exchange);
void docker_container_inspect(struct exchange *exchange);
void docker_container_start(struct exchange *exchange);
void docker_container_stop(struct exchange *exchange);
void docker_container_kill(struct exchange *exchange);
void docker_container_wait(struct exchange *exchange);
void docker_container_resize(struct exchange *exchange);
void docker_container_remove(struct exchange *exchange);
void docker_link_remove(struct exchange *exchange);

/* commit.c */
void docker_commit(struct exchange *exchange);

/* operations.c */
void docker_container_restart(struct exchange *exchange);
void docker_container_update(struct exchange *exchange);
void docker_container_rename(struct exchange *exchange);
void docker_container_pause(struct exchange *exchange);
void docker_container_unpause(struct exchange *exchange);
void docker_container_top(struct exchange *exchange);
void docker_container_prune(struct exchange *exchange);

/* registry.c */
void docker_image_create(struct exchange *exchange);
void docker_image_push(struct exchange *exchange);
void docker_image_search(struct exchange *exchange);
void docker_distribution(struct exchange *exchange);
/* For call(): how far a pull, push or load is, in docker's lines. */
void docker_tell_progress(struct exchange *exchange, const struct rpc_progress *progress);
/* What is in it moves; NULL: there is nothing. Owned. */
struct docker_auth_config;
struct api_credentials *docker_credentials_take(struct docker_auth_config *auth);

/* build.c */
void docker_build(struct exchange *exchange);
void docker_build_prune(struct exchange *exchange);

/* networks.c */
void docker_network_list(struct exchange *exchange);
void docker_network_inspect(struct exchange *exchange);
void docker_network_create(struct exchange *exchange);
void docker_network_remove(struct exchange *exchange);
void docker_network_connect(struct exchange *exchange);
void docker_network_disconnect(struct exchange *exchange);
void docker_network_prune(struct exchange *exchange);

/* volumes.c */
struct api_volume;
void docker_volume_list(struct exchange *exchange);
void docker_volume_inspect(struct exchange *exchange);
void docker_volume_create(struct exchange *exchange);
void docker_volume_remove(struct exchange *exchange);
void docker_volume_prune(struct exchange *exchange);
void docker_write_volume(struct json_writer *writer, const struct api_volume *volume);

struct api_image_summary;
struct api_image_usage;
struct api_disk_usage;
/* images.c; usage NULL: not counted. */
void docker_write_image(struct json_writer *writer, const struct api_image_summary *image,
                        const struct api_image_usage *usage);
/* NULL: not of those. */
const struct api_image_usage *docker_image_usage(const struct api_disk_usage *usage,
                                                 const char *id);

/* df.c */
void docker_disk_usage(struct exchange *exchange);

/* archive.c */
void docker_archive_stat(struct exchange *exchange);
void docker_archive_get(struct exchange *exchange);
void docker_archive_put(struct exchange *exchange);
void docker_container_changes(struct exchange *exchange);
void docker_container_export(struct exchange *exchange);
void docker_image_import(struct exchange *exchange);
/* A method that writes an archive to the descriptor that goes along: it becomes the answer. */
void docker_download(struct exchange *exchange, const char *method, const void *params);

/* stats.c */
void docker_container_stats(struct exchange *exchange);

/* streams.c */
/* Whether they are keys; has answered when they are not. */
bool check_detach_keys(struct exchange *exchange, const char *text);
void docker_container_attach(struct exchange *exchange);
void docker_container_attach_websocket(struct exchange *exchange);
void docker_container_logs(struct exchange *exchange);

/* exec.c */
void docker_exec_create(struct exchange *exchange);
void docker_exec_start(struct exchange *exchange);
void docker_exec_resize(struct exchange *exchange);
void docker_exec_inspect(struct exchange *exchange);

/* images.c */
void docker_image_list(struct exchange *exchange);
void docker_image_load(struct exchange *exchange);
void docker_image_save(struct exchange *exchange);
void docker_image_inspect(struct exchange *exchange);
void docker_image_history(struct exchange *exchange);
void docker_image_tag(struct exchange *exchange);
void docker_image_remove(struct exchange *exchange);
void docker_image_prune(struct exchange *exchange);

#endif
