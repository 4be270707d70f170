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

/* For image functions: the document is the answer. data: the request. */
void api_done_document(const struct error *err, const void *document, void *data);

/* The container meant, or NULL after having answered that there is none. */
struct container *api_container(struct rpc_request *request, const char *reference,
                                struct api *api);

void api_system_version_handler(struct rpc_request *request, const void *params, void *context);
void api_system_info_handler(struct rpc_request *request, const void *params, void *context);
void api_system_shutdown_handler(struct rpc_request *request, const void *params, void *context);
void api_system_remove_handler(struct rpc_request *request, const void *params, void *context);

void api_container_create_handler(struct rpc_request *request, const void *params, void *context);
void api_container_start_handler(struct rpc_request *request, const void *params, void *context);
void api_container_attach_handler(struct rpc_request *request, const void *params, void *context);
void api_container_wait_handler(struct rpc_request *request, const void *params, void *context);
void api_container_list_handler(struct rpc_request *request, const void *params, void *context);
void api_container_inspect_handler(struct rpc_request *request, const void *params, void *context);
void api_container_logs_handler(struct rpc_request *request, const void *params, void *context);
void api_container_kill_handler(struct rpc_request *request, const void *params, void *context);
void api_container_stop_handler(struct rpc_request *request, const void *params, void *context);
void api_container_remove_handler(struct rpc_request *request, const void *params, void *context);
void api_container_resize_handler(struct rpc_request *request, const void *params, void *context);
void api_container_exec_handler(struct rpc_request *request, const void *params, void *context);
void api_exec_wait_handler(struct rpc_request *request, const void *params, void *context);
void api_container_commit_handler(struct rpc_request *request, const void *params, void *context);

void api_image_load_handler(struct rpc_request *request, const void *params, void *context);
void api_image_save_handler(struct rpc_request *request, const void *params, void *context);
void api_image_list_handler(struct rpc_request *request, const void *params, void *context);
void api_image_inspect_handler(struct rpc_request *request, const void *params, void *context);
void api_image_tag_handler(struct rpc_request *request, const void *params, void *context);
void api_image_remove_handler(struct rpc_request *request, const void *params, void *context);

#endif
