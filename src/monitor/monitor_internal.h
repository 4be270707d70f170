/*
 * The parts of the monitor and what they share. Everything runs on one thread and one epoll set;
 * nothing here blocks but the few file operations on BUNDLE and the log.
 */
#ifndef MONITOR_INTERNAL_H
#define MONITOR_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <base/detach_keys.h>
#include <base/clock.h>
#include <base/error.h>
#include <base/process.h>
#include <base/watch.h>
#include <monitor/monitor.h>
#include <monitor/protocol.h>

struct monitor;
struct session;

/* ---- loop.c: descriptors by type, deadlines ---- */

enum watch_type {
    WATCH_NONE,     /* as WATCH_INIT */
    WATCH_SIGNALS,  /* signalfd */
    WATCH_LISTENER, /* monitor.sock */
    WATCH_CONTROL,  /* a daemon; in struct control */
    WATCH_OUTPUT,   /* a pipe or terminal written by the sandbox; in struct output */
    WATCH_INPUT,    /* a pipe or terminal read by the sandbox; in struct input */
    WATCH_CLIENT,   /* in struct client */
};

enum deadline {
    DEADLINE_STOP,          /* SIGKILL after the stop signal */
    DEADLINE_DRAIN,         /* the container has ended, somebody still holds its pipes */
    DEADLINE_SESSIONS,      /* ended exec sessions, terminals that nobody holds: look again */
    DEADLINE_LINGER,        /* clients that do not take what they are owed */
    DEADLINE_IDLE,          /* gives the memory of struct scratch back */
    DEADLINE_RESTART,       /* the next run */
    DEADLINE_CHECK,         /* the next health check */
    DEADLINE_CHECK_TIMEOUT, /* the one at work has had its time */
    DEADLINE_START,         /* the runtime has had its time to start the container */
    DEADLINE_COUNT,
};

void deadline_set(struct monitor *monitor, enum deadline which, int64_t milliseconds);
void deadline_clear(struct monitor *monitor, enum deadline which);
/* Unless it is set to come sooner. */
void deadline_set_sooner(struct monitor *monitor, enum deadline which, int64_t milliseconds);
/* Moves one that is set. */
void deadline_touch(struct monitor *monitor, enum deadline which, int64_t milliseconds);

/* Waits for one event or deadline and handles it. */
int loop_once(struct monitor *monitor, struct error *err);

/* ---- isolate.c ---- */

int isolate_process(struct error *err);
int isolate_mounts(const struct monitor_options *options, struct error *err);
void isolate_release_mounts(const struct monitor_options *options);
void isolate_begin_child(void); /* around starting a child: it gets the oom score we came with */
void isolate_end_child(void);

/* ---- joined.c: what is shared with other containers ---- */

/* Binds the namespace fd on BUNDLE/name, which is made where it is missing. */
int joined_bind(const struct monitor_options *options, int fd, const char *name, struct error *err);
/* Before each run: what the others have now is mounted in the bundle. -EBUSY: one of them does not
 * run. */
int joined_prepare(const struct monitor_options *options, struct error *err);
void joined_release(const struct monitor_options *options);

/* ---- container_log.c: the log files ---- */

enum {
    LOG_LINE_MAX = 16 * 1024,
    LOG_PREFIX_LENGTH = 40,
    LOG_TEXT_SIZE = 64 * 1024, /* written at once */
};

enum stream { STREAM_STDOUT = 1, STREAM_STDERR = 2 }; /* also the number in attach frames */

/* One file of the log, for as long as it is written to or somebody reads it. */
struct log_file {
    unsigned references; /* the log's, the older file's and one per client in it */
    int fd;
    int64_t number;        /* rises by one from a file to the next */
    uint64_t start;        /* place of its first byte in all of the log */
    uint64_t size;         /* bytes of whole lines */
    struct log_file *next; /* a reference; NULL: it is the one in use */
};

struct container_log {
    const char *path;
    struct log_file *file; /* the one in use; NULL: not open */
    uint64_t max_size;     /* of a file; 0: no limit */
    uint32_t max_files;    /* with the one in use */
    char *text;            /* room for LOG_TEXT_SIZE; not owned */
    size_t length;         /* in use, while appending */
    bool failing;          /* the last write failed; said once */
    bool held;             /* nothing may be deleted now */
    bool rotated;          /* since this was last looked at */
    bool watched;          /* no more than one file a call of append(): held is looked at between */
    int64_t second;        /* of the text in date */
    char date[20];         /* 2026-11-20T10:00:00 */
};

/* path: must stay valid. text: room for LOG_TEXT_SIZE, used while appending. */
int container_log_open(struct container_log *log, const char *path, char *text, struct error *err);
void container_log_close(struct container_log *log);
/* Sets max_size and max_files and deletes files that are too many. */
void container_log_limit(struct container_log *log, uint64_t max_size, uint32_t max_files);

/* Appends data as lines of stream; all of it or, when it cannot be written (-errno), nothing of
 * what does not lie in a closed file already. Begins a new file where the limit is reached, unless
 * the log is held. */
int container_log_append(struct container_log *log, enum stream stream, const char *data,
                         size_t length);

/* Whether the next line will begin a new file; and whether what has this number goes then. */
bool container_log_full(const struct container_log *log);
bool container_log_goes_next(const struct container_log *log, const struct log_file *file);
/* Whether it is deleted already. */
bool container_log_gone(const struct container_log *log, const struct log_file *file);

/* The end of a log as one file that lies before file: what fd holds, which is taken over. The
 * reference to file goes with it. It counts as gone when file does. */
struct log_file *container_log_before(struct log_file *file, int fd);

/* A reference to the file with this inode; 0, or one that is no more: the oldest. Never fails: the
 * one in use at worst. */
struct log_file *container_log_find(struct container_log *log, uint64_t inode);
struct log_file *log_file_ref(struct log_file *file);
void log_file_unref(struct log_file *file);                  /* NULL allowed */
uint64_t container_log_end(const struct container_log *log); /* place behind its last byte */

/* ---- session.c: a process of the sandbox (the container's own or an exec) and its streams ---- */

struct output {
    struct watch watch;
    struct session *session;
    enum stream stream;
    bool hung; /* a terminal that nobody holds open just now */
};

struct input {
    struct watch watch;
    struct session *session;
    char *pending; /* owned; what the sandbox has not taken yet */
    size_t length;
    size_t at;
    bool end_wanted; /* close when pending is written */
};

enum session_phase {
    SESSION_NEW,
    SESSION_STARTING, /* the runtime is at work */
    SESSION_RUNNING,
    SESSION_ENDED, /* exit code known, streams perhaps not drained */
};

struct session {
    struct session *next;
    char id[MONITOR_ID_SIZE]; /* "": the container */
    enum session_phase phase;
    bool tty;
    bool with_stdin; /* a pipe, else /dev/null */
    bool with_output;
    bool stdin_once;       /* the client's end is the sandbox's end */
    uint32_t request;      /* to be answered when started */
    uint32_t asked_by;     /* generation of the daemon that is to be answered */
    struct process helper; /* the runtime; pid 0: not at work */
    pid_t pid;             /* 0: does not live */
    int exit_code;
    int64_t ended;      /* clock_milliseconds() */
    char *document;     /* owned; an exec's process document, a name in the bundle */
    bool keep_document; /* it is used again */
    uint16_t rows, columns;
    struct input input;
    struct output output[2];
    int console_fd; /* listener where the runtime brings the terminal; -1: none */
};

/* The descriptors that the runtime passes on to the sandbox; -1: /dev/null. */
struct session_stdio {
    int fds[3];
};

void session_init(struct session *session, const char *id);
/* For another run of the same. */
void session_renew(struct monitor *monitor, struct session *session);

/* Makes pipes, or the socket that the terminal comes through. On success the runtime is to be
 * called with *ret, which is then closed. */
int session_open_streams(struct monitor *monitor, struct session *session,
                         struct session_stdio *ret, struct error *err);
void session_stdio_close(struct session_stdio *stdio);

/* The runtime has done its work: takes the terminal over, if there is to be one, and begins to
 * serve the streams. Until then nothing is read, so that what a failing runtime prints stays out of
 * the log. */
int session_begin(struct monitor *monitor, struct session *session, struct error *err);

/* Serves what has been written, without waiting, up to a bound. */
void session_drain(struct monitor *monitor, struct session *session);
bool session_streams_open(const struct session *session);
void session_close_streams(struct monitor *monitor, struct session *session);

/* The output of an exec session is not read while its client has no room. */
void session_pause_output(struct monitor *monitor, struct session *session);
void session_resume_output(struct monitor *monitor, struct session *session);
void session_retry_hung(struct monitor *monitor, struct session *session);

/* Whether there is a stdin to write to, now or after the start; and whether it has room now. */
bool session_input_open(const struct session *session);
bool session_takes_input(const struct session *session);
void session_write_input(struct monitor *monitor, struct session *session, const char *data,
                         size_t length);
void session_end_input(struct monitor *monitor, struct session *session);
int session_resize(struct session *session, uint16_t rows, uint16_t columns);

/* Name of a session's file in the bundle: init.pid, exec-ID.pid, runtime.log, exec-ID.log. Owned.
 */
char *session_file(const struct monitor *monitor, const struct session *session,
                   const char *suffix);

void output_ready(struct monitor *monitor, struct output *output);
void input_ready(struct monitor *monitor, struct input *input);

/* ---- client.c: attached and following streams ---- */

enum { LINGER_MS = 10 * 1000 }; /* without progress; then what a client is owed is dropped */

enum client_kind {
    CLIENT_ATTACH, /* reads the log, as raw bytes or frames */
    CLIENT_FOLLOW, /* reads the log as it is */
    CLIENT_EXEC,   /* gets the output of its exec session directly */
};

struct client {
    struct client *next;
    struct watch watch;
    enum client_kind kind;
    struct session *session; /* whose stdin and output; NULL: follow, or the session is gone */
    uint32_t flags;          /* MONITOR_ATTACH_* */
    struct log_file *file;   /* a reference; NULL for CLIENT_EXEC */
    uint64_t offset;         /* in the file */
    uint64_t until;          /* place in all of the log where it ends; UINT64_MAX: with the log */
    size_t sent;             /* bytes of the line at offset that were sent, as the client sees it */
    char *pending;           /* CLIENT_EXEC: owned; output not taken yet */
    size_t length;
    size_t at;
    struct detach_keys detach;
    bool input_ended; /* its half of the connection is shut */
    bool gone;        /* it has closed; the rest of its input is still read */
};

/* Where a client of the log begins. */
struct log_place {
    struct log_file *file; /* NULL: no client of the log */
    uint64_t offset;
    uint64_t until; /* UINT64_MAX: the end of all */
};

/* For a client of a terminal; keys that are too many are none. */
void client_set_detach(struct client *client, const struct monitor_detach *detach);

/* Takes fd over, also on failure; at->file is the caller's still. The client is the first of
 * monitor->clients then. */
int client_add(struct monitor *monitor, enum client_kind kind, struct session *session,
               uint32_t flags, const struct log_place *at, int fd, struct error *err);
void client_ready(struct monitor *monitor, struct client *client, uint32_t events);

/* New lines are in the log. */
void clients_log_grew(struct monitor *monitor);

/* Output that the log could not take: to those who have everything else, as far as they take it. */
void clients_bypass_log(struct monitor *monitor, enum stream stream, const char *data,
                        size_t length);

/* Output of an exec session, to its client if there is one. */
void clients_send_exec(struct monitor *monitor, struct session *session, enum stream stream,
                       const char *data, size_t length);
bool clients_exec_blocked(const struct monitor *monitor, const struct session *session);

/* Whether somebody attached has not taken yet what the log's next rotation would delete. */
bool clients_hold_log(const struct monitor *monitor);
bool clients_watch_log(const struct monitor *monitor); /* somebody is attached */

/* The session's stdin has opened, has room again or has closed. */
void clients_input_changed(struct monitor *monitor, struct session *session);

/* The session is over: its clients go when they have what they are owed. */
void clients_session_over(struct monitor *monitor, struct session *session);

/* A run of the container is over and another will come: those attached end here, followers stay. */
void clients_run_over(struct monitor *monitor);

/* Lets clients of the log go that have all of it. Whether any is left. */
bool clients_close_served(struct monitor *monitor);
void clients_finish(struct monitor *monitor);

/* ---- control.c: daemons ---- */

enum { CONTROLS_MAX = 4 }; /* connections that have not said HELLO yet, and the daemon's */

struct control {
    struct watch watch;
    uint16_t version; /* of its HELLO; 0: not said yet */
};

int control_open(struct monitor *monitor, struct error *err);
void control_listener_ready(struct monitor *monitor);
void control_ready(struct monitor *monitor, struct control *control, uint32_t events);

/* To the daemon; -errno when there is none or it does not read. */
int control_send(struct monitor *monitor, enum monitor_type type, uint32_t request,
                 const void *payload, size_t length);
/* The same for what version 1 does not know. */
void control_send_new(struct monitor *monitor, enum monitor_type type, const void *payload,
                      size_t length);
void control_send_error(struct monitor *monitor, enum monitor_type type, uint32_t request, int code,
                        const char *text);

/* The number to answer the session's request by: 0 when the daemon that asked has gone. */
uint32_t control_request_for(const struct monitor *monitor, const struct session *session);
void control_stop_listening(struct monitor *monitor);
void control_finish(struct monitor *monitor);

/* ---- runtime.c: calling cloche-runtime ---- */

/* Both set session->helper. */
int runtime_run(struct monitor *monitor, struct session *session, struct session_stdio *stdio,
                struct error *err);
int runtime_exec(struct monitor *monitor, struct session *session, struct session_stdio *stdio,
                 struct error *err);
int runtime_delete(struct monitor *monitor, struct error *err); /* sets monitor->deleting */
bool runtime_knows_container(const struct monitor *monitor);

/* The pid file of a finished run or exec. */
int runtime_read_pid(struct monitor *monitor, const struct session *session, pid_t *ret,
                     struct error *err);

/* Why a run or exec failed, from its log: err's message, and docker's 125, 126 or 127. */
int runtime_failure(struct monitor *monitor, const struct session *session, int status,
                    struct error *err);
void runtime_remove_files(struct monitor *monitor, const struct session *session);
/* Kills a runtime that is still at work for a session that nobody wants any more. */
void runtime_give_up(struct session *session);

/* ---- container.c, exec.c: what happens to the container and to exec sessions ---- */

void container_start(struct monitor *monitor, uint32_t request);
int container_signal(struct monitor *monitor, uint32_t signal, struct error *err);
int container_stop(struct monitor *monitor, uint32_t signal, int32_t timeout_ms, struct error *err);
void container_stop_overdue(struct monitor *monitor);
void container_start_overdue(struct monitor *monitor);
void container_helper_ended(struct monitor *monitor, int status);
void container_init_ended(struct monitor *monitor, int status);
void container_delete_ended(struct monitor *monitor, int status);

/* Its streams have ended, or (give_up) shall not be waited for any longer. */
void container_drained(struct monitor *monitor, bool give_up);
void container_fill_status(const struct monitor *monitor, struct monitor_status *ret);
void container_write_status(struct monitor *monitor);
/* The next run, after the first one. */
void container_run_again(struct monitor *monitor);
/* It will not run again: everything is released and told. */
void container_finish(struct monitor *monitor);
/* Sends the stop signal and sets the time until SIGKILL, as struct monitor_stop has it. */
void container_end_run(struct monitor *monitor, int signal, int32_t timeout_ms);

/* Answers later; -errno when it does not get that far. Takes *stream when there is one. */
int exec_start(struct monitor *monitor, uint32_t request, const struct monitor_exec *exec,
               int *stream, struct error *err);
struct session *exec_find(struct monitor *monitor, const char *id);
void exec_helper_ended(struct monitor *monitor, struct session *session, int status);
void exec_process_ended(struct monitor *monitor, struct session *session, int status);
void exec_drained(struct monitor *monitor, struct session *session);

/* Looks at ended exec sessions whose streams are still held, and at hung terminals. */
void sessions_check(struct monitor *monitor);

/* Tells a new daemon of the sessions there are, and of ends that nobody heard of. */
void execs_tell(struct monitor *monitor);
void execs_finish(struct monitor *monitor);

/* ---- restart.c: whether and when it runs again ---- */

int restart_set_policy(struct monitor *monitor, const struct monitor_policy *policy,
                       struct error *err);
/* Of a container that runs; log and check stay as they are. */
int restart_update_policy(struct monitor *monitor, const struct monitor_policy *policy,
                          struct error *err);

/* A run has ended and is cleaned up. Begins to wait for the next one; false: there is none. */
bool restart_begin_wait(struct monitor *monitor);
void restart_due(struct monitor *monitor);

/* ---- health.c: checks of a container that runs ---- */

void health_begin(struct monitor *monitor);
void health_end(struct monitor *monitor); /* the run is over */
void health_check_due(struct monitor *monitor);
void health_check_overdue(struct monitor *monitor);
void health_helper_ended(struct monitor *monitor, int status);
void health_process_ended(struct monitor *monitor, int status);
void health_take_output(struct monitor *monitor, const char *data, size_t length);
void health_remove_files(struct monitor *monitor);

/* ---- packing.c: full files of the log ---- */

void packing_open(struct monitor *monitor); /* when the log's limits are known */
void packing_begin(struct monitor *monitor);
void packing_ended(struct monitor *monitor, int status);

/* ---- children.c ---- */

void children_reap(struct monitor *monitor);
/* What a runtime left that was killed in the middle of a start, when nothing else of the sandbox
 * lives: SIGKILL to all children. */
void children_kill(void);

/* ---- monitor.c ---- */

enum monitor_phase {
    PHASE_CREATED,   /* waiting for START */
    PHASE_STARTING,  /* `runtime run` at work */
    PHASE_RUNNING,   /* init lives */
    PHASE_DRAINING,  /* init has ended, its streams are read out */
    PHASE_DELETING,  /* `runtime delete` at work */
    PHASE_WAITING,   /* for the next run */
    PHASE_LINGERING, /* EXITED was told; clients get the rest of what they are owed */
    PHASE_DONE,
};

enum { IO_BUFFER_SIZE = 32 * 1024 }; /* holds a whole log line: LOG_PREFIX_LENGTH + LOG_LINE_MAX */

/* What is in use only while output is moved; its pages are given back when it is quiet. */
struct scratch {
    char io[IO_BUFFER_SIZE];
    char log_text[LOG_TEXT_SIZE];
};

struct restart {
    struct monitor_policy policy;
    uint32_t restarts;
    uint32_t delay_ms;   /* of the wait that is or was; 0: none yet */
    uint64_t next_start; /* nanoseconds since the epoch; while waiting */
    bool ending;         /* asked to end: it does not run again */
    bool unhealthy;      /* this run is being ended for its check's sake */
    bool stop_pending;   /* asked to stop while the runtime was at work */
    int stop_signal;
    int32_t stop_timeout_ms;
};

struct health {
    enum monitor_health_status status;
    uint32_t failing_streak;
    uint32_t number;        /* of checks since the monitor's start */
    struct session session; /* of the check at work */
    bool timed_out;
    uint64_t started;
    char *output; /* owned; room for MONITOR_CHECK_OUTPUT_MAX while a check is at work */
    size_t length;
};

struct monitor {
    const struct monitor_options *options;
    enum monitor_phase phase;
    int epoll_fd;
    int bundle_fd;
    int64_t deadlines[DEADLINE_COUNT]; /* clock_milliseconds(), 0: not set */
    struct watch signals;
    struct watch listener;
    struct control controls[CONTROLS_MAX];
    struct control *daemon;     /* one of controls, or NULL */
    uint32_t daemon_generation; /* counts HELLOs */
    struct container_log log;
    struct session container;
    struct session *execs;
    size_t execs_count;
    struct client *clients;
    size_t clients_count;
    struct process deleting; /* `runtime delete`; pid 0: not at work */
    struct {
        struct process process; /* pid 0: not at work */
        int64_t number;         /* of the file that is being packed */
        bool failing;           /* said once */
    } packing;
    struct restart restart;
    struct health health;
    bool ran;                 /* START was answered with STARTED */
    const char *start_killed; /* why the runtime was killed that starts the container; or NULL */
    uint64_t started, finished;
    int64_t began; /* clock_milliseconds() at started */
    bool oom;
    int exit_code;
    struct error failure; /* why it cannot start or its last run did not; code 0: it did */
    struct scratch *scratch;
};

/* The scratch is used now: its memory is given back later. */
void monitor_use_scratch(struct monitor *monitor);
void monitor_release_scratch(struct monitor *monitor);

#endif
