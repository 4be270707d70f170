/*
 * The handlers, by method, and what they share.
 */
#ifndef API_HANDLERS_H
#define API_HANDLERS_H

#include <api/api.h>
#include <schema/management.h>

/* Answers with the error that err->code means (ENGINE_... and errno). */
void api_fail(struct rpc_request *request, const struct error *err);

/* For operations whose answer is empty, or {"changed": ...}. data: the request. */
void api_done_empty(const struct engine_result *result, void *data);
void api_done_changed(const struct engine_result *result, void *data);

/* For exec sessions that begin. data: the request. */
void api_done_exec(const struct engine_result *result, void *data);

/* For image functions: the document is the answer. data: the request. */
void api_done_document(const struct error *err, const void *document, void *data);

/* To clients that asked for it; item may be NULL. */
void api_tell_progress(struct rpc_request *request, const char *item, const char *step,
                       uint64_t done, uint64_t total);

/* The one descriptor that must come along with the call, owned; or -1 after having answered. */
int api_take_archive(struct rpc_request *request);

/* The container meant, or NULL after having answered that there is none. */
struct container *api_container(struct rpc_request *request, const char *reference,
                                struct api *api);

/* Whether the peer may know of this container. */
bool api_sees(const struct api *api, const struct rpc_connection *connection, const char *id,
              const char *name);
/* Whether it may know of any: one that neither has a name nor an ID fits nothing less. */
bool api_sees_all(const struct api *api, const struct rpc_connection *connection);
/* -EACCES: who calls would not see a new container of this name (NULL: none yet). */
int api_check_name(const struct rpc_request *request, const char *name, const struct api *api,
                   struct error *err);

void api_system_version(struct rpc_request *request, const struct api_empty *params, void *context);
void api_system_info(struct rpc_request *request, const struct api_empty *params, void *context);
void api_system_shutdown(struct rpc_request *request, const struct api_system_shutdown *params,
                         void *context);
void api_system_remove(struct rpc_request *request, const struct api_system_remove *params,
                       void *context);

void api_system_check(struct rpc_request *request, const struct api_system_check *params,
                      void *context);

void api_container_create(struct rpc_request *request, const struct api_container_spec *params,
                          void *context);
void api_container_start(struct rpc_request *request, const struct api_container_ref *params,
                         void *context);
void api_container_attach(struct rpc_request *request, const struct api_container_attach *params,
                          void *context);
void api_container_wait(struct rpc_request *request, const struct api_container_wait *params,
                        void *context);
void api_container_list(struct rpc_request *request, const struct api_container_list *params,
                        void *context);
void api_container_inspect(struct rpc_request *request, const struct api_container_ref *params,
                           void *context);
void api_container_logs(struct rpc_request *request, const struct api_container_logs *params,
                        void *context);
void api_container_kill(struct rpc_request *request, const struct api_container_kill *params,
                        void *context);
void api_container_stop(struct rpc_request *request, const struct api_container_stop *params,
                        void *context);
void api_container_remove(struct rpc_request *request, const struct api_container_remove *params,
                          void *context);
void api_container_resize(struct rpc_request *request, const struct api_container_resize *params,
                          void *context);
void api_container_exec(struct rpc_request *request, const struct api_container_exec *params,
                        void *context);
void api_container_exec_wait(struct rpc_request *request, const struct api_exec_ref *params,
                             void *context);
void api_container_commit(struct rpc_request *request, const struct api_container_commit *params,
                          void *context);

void api_container_update(struct rpc_request *request, const struct api_container_update *params,
                          void *context);
void api_container_rename(struct rpc_request *request, const struct api_container_rename *params,
                          void *context);
void api_container_pause(struct rpc_request *request, const struct api_container_pause *params,
                         void *context);
void api_container_unpause(struct rpc_request *request, const struct api_container_pause *params,
                           void *context);
void api_container_restart(struct rpc_request *request, const struct api_container_restart *params,
                           void *context);
void api_container_top(struct rpc_request *request, const struct api_container_top *params,
                       void *context);
void api_container_size(struct rpc_request *request, const struct api_container_size *params,
                        void *context);
void api_container_stats(struct rpc_request *request, const struct api_container_stats *params,
                         void *context);
void api_container_prune(struct rpc_request *request, const struct api_container_prune *params,
                         void *context);
void api_container_exec_create(struct rpc_request *request, const struct api_exec_create *params,
                               void *context);
void api_container_exec_start(struct rpc_request *request, const struct api_exec_start *params,
                              void *context);
void api_container_exec_inspect(struct rpc_request *request, const struct api_exec_ref *params,
                                void *context);
void api_image_history(struct rpc_request *request, const struct api_image_history *params,
                       void *context);
void api_image_prune(struct rpc_request *request, const struct api_image_prune *params,
                     void *context);

void api_build_run(struct rpc_request *request, const struct api_build_run *params, void *context);
void api_build_prune(struct rpc_request *request, const struct api_build_prune *params,
                     void *context);

void api_rpc_whoami(struct rpc_request *request, const struct api_empty *params, void *context);

void api_events_subscribe(struct rpc_request *request, const struct api_events_subscribe *params,
                          void *context);
void api_events_unsubscribe(struct rpc_request *request,
                            const struct api_events_unsubscribe *params, void *context);
void api_events_list(struct rpc_request *request, const struct api_events_list *params,
                     void *context);

void api_image_load(struct rpc_request *request, const struct api_image_load *params,
                    void *context);
void api_image_save(struct rpc_request *request, const struct api_image_save *params,
                    void *context);
void api_image_list(struct rpc_request *request, const struct api_image_list *params,
                    void *context);
void api_image_inspect(struct rpc_request *request, const struct api_image_ref *params,
                       void *context);
void api_image_tag(struct rpc_request *request, const struct api_image_tag *params, void *context);
void api_image_remove(struct rpc_request *request, const struct api_image_remove *params,
                      void *context);

/* volumes.c */
void api_volume_create(struct rpc_request *request, const struct api_volume_create *params,
                       void *context);
void api_volume_list(struct rpc_request *request, const struct api_volume_list *params,
                     void *context);
void api_volume_inspect(struct rpc_request *request, const struct api_volume_ref *params,
                        void *context);
void api_volume_remove(struct rpc_request *request, const struct api_volume_remove *params,
                       void *context);
void api_volume_prune(struct rpc_request *request, const struct api_volume_prune *params,
                      void *context);
void api_system_disk_usage(struct rpc_request *request, const struct api_disk_usage_what *params,
                           void *context);

/* files.c */
void api_container_archive_stat(struct rpc_request *request, const struct api_archive_path *params,
                                void *context);
void api_container_archive_get(struct rpc_request *request, const struct api_archive_get *params,
                               void *context);
void api_container_archive_put(struct rpc_request *request, const struct api_archive_put *params,
                               void *context);
void api_container_changes(struct rpc_request *request, const struct api_container_ref *params,
                           void *context);
void api_container_export(struct rpc_request *request, const struct api_container_ref *params,
                          void *context);
void api_image_import(struct rpc_request *request, const struct api_image_import *params,
                      void *context);

/* registry.c */
void api_image_pull(struct rpc_request *request, const struct api_image_pull *params,
                    void *context);
void api_image_push(struct rpc_request *request, const struct api_image_push *params,
                    void *context);
void api_image_distribution(struct rpc_request *request,
                            const struct api_image_distribution *params, void *context);
void api_image_search(struct rpc_request *request, const struct api_image_search *params,
                      void *context);
void api_registry_login(struct rpc_request *request, const struct api_registry_login *params,
                        void *context);

void api_network_create(struct rpc_request *request, const struct api_network_create *params,
                        void *context);
void api_network_list(struct rpc_request *request, const struct api_network_list *params,
                      void *context);
void api_network_inspect(struct rpc_request *request, const struct api_network_ref *params,
                         void *context);
void api_network_remove(struct rpc_request *request, const struct api_network_remove *params,
                        void *context);
void api_network_prune(struct rpc_request *request, const struct api_network_prune *params,
                       void *context);
void api_network_connect(struct rpc_request *request, const struct api_network_connect *params,
                         void *context);
void api_network_disconnect(struct rpc_request *request,
                            const struct api_network_disconnect *params, void *context);
void api_container_publish(struct rpc_request *request, const struct api_container_ports *params,
                           void *context);
void api_container_unpublish(struct rpc_request *request, const struct api_container_ports *params,
                             void *context);

/* usb.c */
void api_usb_list(struct rpc_request *request, const struct api_usb_list *params, void *context);
void api_usb_inspect(struct rpc_request *request, const struct api_usb_ref *params, void *context);
void api_usb_attach(struct rpc_request *request, const struct api_usb_attach *params,
                    void *context);
void api_usb_detach(struct rpc_request *request, const struct api_usb_ref *params, void *context);
void api_usb_eject(struct rpc_request *request, const struct api_usb_ref *params, void *context);
void api_usb_stats(struct rpc_request *request, const struct api_usb_ref *params, void *context);
void api_usb_format(struct rpc_request *request, const struct api_usb_format *params,
                    void *context);
void api_usb_check(struct rpc_request *request, const struct api_usb_check *params, void *context);
void api_usb_policy_list(struct rpc_request *request, const struct api_empty *params,
                         void *context);
void api_usb_policy_add(struct rpc_request *request, const struct api_usb_policy_add *params,
                        void *context);
void api_usb_policy_remove(struct rpc_request *request, const struct api_usb_policy_ref *params,
                           void *context);

#endif
