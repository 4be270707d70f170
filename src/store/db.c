#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/alloc.h>
#include <store/db.h>

enum { BUSY_TIMEOUT_MS = 10000 }; /* another process (sqlite3 shell, backup) reads the file */

/* Blocks that the files have before they need them, so that what makes room on a full disk can
 * still be recorded: the log takes a thousand pages until it is begun anew (SQLite,
 * wal_autocheckpoint), and the file grows when they are copied into it. */
enum { RESERVED_LOG = 5 * 1024 * 1024, RESERVED_GROWTH = 256 * 1024 };

/* Compiled statements that are kept: the engine runs the same few dozen all the time. */
enum { CACHE_SIZE = 64 };

struct store_db {
    sqlite3 *handle;
    pthread_mutex_t mutex; /* recursive: statements run inside a transaction of the same thread */
    bool in_transaction;   /* under mutex; its owner holds the mutex once for it */
    bool durable;          /* under mutex; the transaction is flushed when it commits */
    pthread_t owner;       /* of the transaction */
    sqlite3_stmt *cache[CACHE_SIZE]; /* under mutex; NULL or not in use */
};

struct store_statement {
    struct store_db *db;
    sqlite3_stmt *handle;
};

static int db_code(int sqlite_code)
{
    switch (sqlite_code & 0xff) {
    case SQLITE_FULL:
        return -ENOSPC;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return -EBUSY;
    case SQLITE_READONLY:
        return -EROFS;
    case SQLITE_CONSTRAINT:
        return -EEXIST;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return -EBADMSG;
    default:
        return -EIO;
    }
}

static int db_error(struct store_db *db, struct error *err, const char *what)
{
    int code = sqlite3_extended_errcode(db->handle);
    return error_set(err, db_code(code), "%s: %s", what, sqlite3_errmsg(db->handle));
}

static void db_lock(struct store_db *db)
{
    pthread_mutex_lock(&db->mutex);
}

static void db_unlock(struct store_db *db)
{
    pthread_mutex_unlock(&db->mutex);
}

/* A few statements in one text, without arguments. */
static int db_execute(struct store_db *db, const char *sql, struct error *err)
{
    if (sqlite3_exec(db->handle, sql, NULL, NULL, NULL) != SQLITE_OK)
        return db_error(db, err, "state database");
    return 0;
}

static int check_format(struct store_db *db, struct error *err)
{
    struct store_statement *statement = NULL;
    int r = store_db_query(db, &statement, err, "PRAGMA user_version", "");

    if (r < 0)
        return r;
    r = store_statement_step(statement, err);
    int64_t format = r > 0 ? store_statement_integer(statement, 0) : 0;
    store_statement_finish(statement);
    if (r < 0)
        return r;
    if (format > STORE_DB_FORMAT) {
        error_set(err, -EPROTO, "the state database has format %lld, this program knows up to %d",
                  (long long)format, STORE_DB_FORMAT);
        error_hint(err, "it was written by a newer Cloche: use that one");
        return -EPROTO;
    }
    if (format == STORE_DB_FORMAT)
        return 0;
    return db_execute(db,
                      "BEGIN IMMEDIATE;"
                      "CREATE TABLE IF NOT EXISTS component("
                      " name TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID;"
                      "PRAGMA user_version = 1;"
                      "COMMIT",
                      err);
}

static int db_configure(struct store_db *db, struct error *err)
{
    sqlite3_busy_timeout(db->handle, BUSY_TIMEOUT_MS);
    sqlite3_extended_result_codes(db->handle, 1);
    int r = db_execute(db,
                       "PRAGMA journal_mode = WAL;"
                       "PRAGMA synchronous = NORMAL;"
                       "PRAGMA foreign_keys = ON;"
                       "PRAGMA trusted_schema = OFF",
                       err);
    return r < 0 ? r : check_format(db, err);
}

/* Not every file system can, and a full one no longer: then it is as it would be without. */
static void reserve(int fd, off_t size)
{
    if (fd >= 0)
        fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, size);
}

/* Before SQLite opens it: whoever closes a file of its own of it takes SQLite's locks away
 * (fcntl(2)), and another program that looks into the database would then delete the log. */
static void reserve_database(const char *path)
{
    _cleanup_close_ int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    struct stat status;

    if (fd >= 0 && fstat(fd, &status) == 0)
        reserve(fd, status.st_size + RESERVED_GROWTH);
}

/* The log stays when the database is closed, with its blocks. SQLite has no locks on it. */
static void reserve_log(struct store_db *db, const char *path)
{
    _cleanup_free_ char *log = xasprintf("%s-wal", path);
    _cleanup_close_ int fd = open(log, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    int keep = 1;

    sqlite3_file_control(db->handle, NULL, SQLITE_FCNTL_PERSIST_WAL, &keep);
    reserve(fd, RESERVED_LOG);
}

int store_db_open(const char *path, struct store_db **ret, struct error *err)
{
    struct store_db *db = xnew(struct store_db);
    pthread_mutexattr_t attributes;

    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&db->mutex, &attributes);
    pthread_mutexattr_destroy(&attributes);

    int r = 0;
    reserve_database(path);
    /* Our mutex is the only one needed; SQLite's own (FULLMUTEX) is left out. */
    if (sqlite3_open_v2(path, &db->handle,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
                        NULL) != SQLITE_OK)
        r = db->handle ? db_error(db, err, "open") : error_set(err, -ENOMEM, "open");
    if (r == 0)
        r = db_configure(db, err);
    if (r < 0) {
        error_context(err, "%s", path);
        store_db_close(db);
        return r;
    }
    reserve_log(db, path);
    *ret = db;
    return 0;
}

void store_db_close(struct store_db *db)
{
    if (!db)
        return;
    for (size_t i = 0; i < CACHE_SIZE; i++)
        sqlite3_finalize(db->cache[i]);
    sqlite3_close_v2(db->handle);
    pthread_mutex_destroy(&db->mutex);
    free(db);
}

static int begin(struct store_db *db, bool durable, struct error *err)
{
    db_lock(db);
    if (db->in_transaction) {
        db_unlock(db);
        return error_set(err, -EDEADLK, "state database: a transaction inside a transaction");
    }
    int r = db_execute(
        db, durable ? "PRAGMA synchronous = FULL; BEGIN IMMEDIATE" : "BEGIN IMMEDIATE", err);
    if (r < 0) {
        db_unlock(db);
        return r;
    }
    db->in_transaction = true;
    db->durable = durable;
    db->owner = pthread_self();
    return 0;
}

int store_db_begin(struct store_db *db, struct error *err)
{
    return begin(db, true, err);
}

int store_db_begin_relaxed(struct store_db *db, struct error *err)
{
    return begin(db, false, err);
}

bool store_db_in_transaction(struct store_db *db)
{
    db_lock(db);
    bool owned = db->in_transaction && pthread_equal(db->owner, pthread_self());
    db_unlock(db);
    return owned;
}

static void end_transaction(struct store_db *db)
{
    db->in_transaction = false;
    if (db->durable)
        db_execute(db, "PRAGMA synchronous = NORMAL", NULL);
    db_unlock(db);
}

int store_db_commit(struct store_db *db, struct error *err)
{
    if (!store_db_in_transaction(db))
        return error_set(err, -EINVAL, "state database: commit without a transaction");
    int r = db_execute(db, "COMMIT", err);
    if (r < 0)
        sqlite3_exec(db->handle, "ROLLBACK", NULL, NULL, NULL);
    end_transaction(db);
    return r;
}

void store_db_rollback(struct store_db *db)
{
    int saved = errno;

    if (store_db_in_transaction(db)) {
        sqlite3_exec(db->handle, "ROLLBACK", NULL, NULL, NULL);
        end_transaction(db);
    }
    errno = saved;
}

static int bind_arguments(sqlite3_stmt *statement, const char *types, va_list args)
{
    for (int i = 0; types[i]; i++) {
        int r;
        if (types[i] == 't')
            r = sqlite3_bind_text(statement, i + 1, va_arg(args, const char *), -1,
                                  SQLITE_TRANSIENT);
        else
            r = sqlite3_bind_int64(statement, i + 1, va_arg(args, int64_t));
        if (r != SQLITE_OK)
            return r;
    }
    return SQLITE_OK;
}

/* A compiled statement of this text that nobody uses, out of the cache; NULL: there is none. */
static sqlite3_stmt *take_cached(struct store_db *db, const char *sql)
{
    for (size_t i = 0; i < CACHE_SIZE && db->cache[i]; i++)
        if (!strcmp(sqlite3_sql(db->cache[i]), sql)) {
            sqlite3_stmt *handle = db->cache[i];
            size_t last = i;
            while (last + 1 < CACHE_SIZE && db->cache[last + 1])
                last++;
            db->cache[i] = db->cache[last];
            db->cache[last] = NULL;
            return handle;
        }
    return NULL;
}

static void give_cached(struct store_db *db, sqlite3_stmt *handle)
{
    sqlite3_reset(handle);
    sqlite3_clear_bindings(handle);
    for (size_t i = 0; i < CACHE_SIZE; i++)
        if (!db->cache[i]) {
            db->cache[i] = handle;
            return;
        }
    sqlite3_finalize(handle);
}

/* On success the caller holds the mutex until the statement is finished. */
static int db_prepare(struct store_db *db, struct store_statement **ret, struct error *err,
                      const char *sql, const char *types, va_list args)
{
    db_lock(db);
    sqlite3_stmt *handle = take_cached(db, sql);
    int code =
        handle ? SQLITE_OK
               : sqlite3_prepare_v3(db->handle, sql, -1, SQLITE_PREPARE_PERSISTENT, &handle, NULL);
    if (code != SQLITE_OK || bind_arguments(handle, types, args) != SQLITE_OK) {
        int r = db_error(db, err, "state database");
        sqlite3_finalize(handle);
        db_unlock(db);
        return r;
    }
    struct store_statement *statement = xnew(struct store_statement);
    statement->db = db;
    statement->handle = handle;
    *ret = statement;
    return 0;
}

int store_db_run(struct store_db *db, struct error *err, const char *sql, const char *types, ...)
{
    struct store_statement *statement = NULL;
    va_list args;

    va_start(args, types);
    int r = db_prepare(db, &statement, err, sql, types, args);
    va_end(args);
    if (r < 0)
        return r;
    r = store_statement_step(statement, err);
    if (r >= 0)
        r = sqlite3_changes(db->handle);
    store_statement_finish(statement);
    return r;
}

int store_db_query(struct store_db *db, struct store_statement **ret, struct error *err,
                   const char *sql, const char *types, ...)
{
    va_list args;

    va_start(args, types);
    int r = db_prepare(db, ret, err, sql, types, args);
    va_end(args);
    return r;
}

int store_statement_step(struct store_statement *statement, struct error *err)
{
    switch (sqlite3_step(statement->handle)) {
    case SQLITE_ROW:
        return 1;
    case SQLITE_DONE:
        return 0;
    default:
        return db_error(statement->db, err, "state database");
    }
}

const char *store_statement_text(struct store_statement *statement, int column)
{
    return (const char *)sqlite3_column_text(statement->handle, column);
}

int64_t store_statement_integer(struct store_statement *statement, int column)
{
    return sqlite3_column_int64(statement->handle, column);
}

void store_statement_finish(struct store_statement *statement)
{
    if (!statement)
        return;
    give_cached(statement->db, statement->handle);
    db_unlock(statement->db);
    free(statement);
}

/* 0 when the component has no tables yet. */
static int component_version(struct store_db *db, const char *component, int64_t *ret,
                             struct error *err)
{
    _cleanup_store_statement_ struct store_statement *statement = NULL;
    int r = store_db_query(db, &statement, err, "SELECT version FROM component WHERE name = ?", "t",
                           component);

    if (r < 0)
        return r;
    r = store_statement_step(statement, err);
    if (r < 0)
        return r;
    *ret = r ? store_statement_integer(statement, 0) : 0;
    return 0;
}

int store_db_migrate(struct store_db *db, const char *component, const char *const *migrations,
                     size_t count, struct error *err)
{
    int64_t version = 0;
    int r = store_db_begin(db, err);

    if (r < 0)
        return r;
    _cleanup_store_rollback_ struct store_db *transaction = db;
    r = component_version(db, component, &version, err);
    if (r < 0)
        return r;
    if ((uint64_t)version > count) {
        error_set(err, -EPROTO, "%s records have version %lld, this program knows up to %zu",
                  component, (long long)version, count);
        error_hint(err, "they were written by a newer Cloche: use that one");
        return -EPROTO;
    }
    if ((uint64_t)version == count)
        return 0;
    for (size_t i = (size_t)version; i < count; i++) {
        r = db_execute(db, migrations[i], err);
        if (r < 0)
            return error_context(err, "bring %s records to version %zu", component, i + 1), r;
    }
    r = store_db_run(db, err, "INSERT OR REPLACE INTO component(name, version) VALUES(?, ?)", "ti",
                     component, (int64_t)count);
    if (r < 0)
        return r;
    return store_db_commit(transaction, err);
}
