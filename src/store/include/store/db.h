/*
 * The SQLite file of an instance (ROOT/state.db), shared by the store and the engine: WAL,
 * one connection behind one recursive mutex. A transaction is flushed to the disk when it commits
 * (synchronous FULL) unless it was begun as a relaxed one; a single statement outside of a
 * transaction is relaxed.
 *
 * Every function may be called from any thread and BLOCKS: for other threads' transactions, and for
 * the disk in store_db_commit().
 * Call them from other threads than the event loop's (reading while the loop starts or
 * stops is fine). Never carry the handle across fork: children must execute.
 *
 * A thread owns the mutex from store_db_begin() to commit or rollback, and from store_db_query() to
 * store_statement_finish(); keep both short and in one function.
 */
#ifndef STORE_DB_H
#define STORE_DB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <base/error.h>

struct store_db;
struct store_statement;

/* Opens or creates it. The file's user_version is the format of the file as a whole
 * (STORE_DB_FORMAT); a newer one is -EPROTO. */
enum { STORE_DB_FORMAT = 1 };
int store_db_open(const char *path, struct store_db **ret, struct error *err);
void store_db_close(struct store_db *db); /* NULL allowed */

/* Brings the tables of one component ("store", "engine") to version `count`: runs migrations[v]
 * (one or more SQL statements) for each version v it has not seen, in one transaction. A database
 * whose component is newer than count is -EPROTO and stays untouched. */
int store_db_migrate(struct store_db *db, const char *component, const char *const *migrations,
                     size_t count, struct error *err);

/* A write transaction (BEGIN IMMEDIATE). Not nested. store_db_rollback() keeps errno and does
 * nothing when no transaction of this thread is open, so that it can stand in failure paths.
 * store_db_commit() rolls back when it fails. */
int store_db_begin(struct store_db *db, struct error *err);
/* The same without the flush (WAL with synchronous NORMAL): what is committed survives the death of
 * the process at any moment; after a power cut the last such commits may be missing, all of them or
 * the newest, never one without those before it. For what is rebuilt or ended by a reboot anyhow.
 */
int store_db_begin_relaxed(struct store_db *db, struct error *err);
int store_db_commit(struct store_db *db, struct error *err);
void store_db_rollback(struct store_db *db);
/* Whether the calling thread has one open. */
bool store_db_in_transaction(struct store_db *db);

/* Runs one statement without rows. types has a letter per argument: t text (const char *, NULL is
 * SQL NULL), i integer (int64_t). Returns the number of rows changed. */
int store_db_run(struct store_db *db, struct error *err, const char *sql, const char *types, ...);

/* One statement with rows, arguments likewise. */
int store_db_query(struct store_db *db, struct store_statement **ret, struct error *err,
                   const char *sql, const char *types, ...);
/* 1: a row is there; 0: no more; negative: error. */
int store_statement_step(struct store_statement *statement, struct error *err);
const char *store_statement_text(struct store_statement *statement, int column); /* until step */
int64_t store_statement_integer(struct store_statement *statement, int column);
void store_statement_finish(struct store_statement *statement); /* NULL allowed */

static inline void cleanup_store_statement_p(struct store_statement **statement)
{
    store_statement_finish(*statement);
}
#define _cleanup_store_statement_ _cleanup_(cleanup_store_statement_p)

/* Rolls back at the end of the scope unless committed:
 * `_cleanup_store_rollback_ struct store_db *transaction = db;` after a successful begin. */
static inline void cleanup_store_rollback_p(struct store_db **db)
{
    if (*db)
        store_db_rollback(*db);
}
#define _cleanup_store_rollback_ _cleanup_(cleanup_store_rollback_p)

#endif
