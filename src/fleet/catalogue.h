/*
 * The catalogue's tables and the SQL behind them. Internal to src/fleet: others use dojo/store.h.
 *
 * Invariant: every row can be made again from the store's files (logs/, store.json, runs/), so the
 * catalogue holds nothing like "time added". Row numbers are SQLite's and mean nothing outside.
 */
#ifndef DOJO_FLEET_CATALOGUE_H
#define DOJO_FLEET_CATALOGUE_H

#include <sqlite3.h>
#include <stdio.h>

#include "dojo/store.h"

struct dj_store {
  char *path;
  sqlite3 *db;
};

/* Opens (and where it is missing makes) the database file. *fresh: its tables were just made. */
dj_status dj__catalogue_open(const char *file, sqlite3 **db, bool *fresh);

/*
 * SQL in one call. `types` has a letter per parameter: t text (NULL allowed), i int64_t, u uint64_t
 * (up to 2^63 - 1), d double (NaN is stored as NULL).
 *     DJ_TRY(dj__sql_run(db, "DELETE FROM drives WHERE name = ?", "t", name));
 */
dj_status dj__sql_run(sqlite3 *db, const char *sql, const char *types, ...);
/* A query; step with dj__sql_next until it gives false or an error; it then finalizes itself. A
 * query left early must be closed with sqlite3_finalize. */
dj_status dj__sql_query(sqlite3 *db, sqlite3_stmt **q, const char *sql, const char *types, ...);
dj_status dj__sql_next(sqlite3_stmt **q, bool *row);
/* Columns of the present row. Text is cut to `cap`. */
void dj__sql_text(sqlite3_stmt *q, int column, char *out, size_t cap);
uint64_t dj__sql_u64(sqlite3_stmt *q, int column);  // negative numbers count as 0
double dj__sql_double(sqlite3_stmt *q, int column); // NULL is NaN

/* One writer at a time; other processes wait up to 10 s. End with dj__sql_end: commits where `s` is
 * DJ_OK, else rolls back and returns `s`. */
dj_status dj__sql_begin(sqlite3 *db);
dj_status dj__sql_end(sqlite3 *db, dj_status s);

/* Drives. Put replaces a drive of the same name. */
dj_status dj__catalogue_put_drive(sqlite3 *db, const dj_store_drive *d);
dj_status dj__catalogue_delete_drive(sqlite3 *db, const char *name);
/* Drives whose name, digest or source digest is `key` (NULL: all), by name. */
dj_status dj__catalogue_drives(sqlite3 *db, const char *key, dj_store_drive **drives, size_t *n);

/* Runs: reads S/runs/NAME.json into the tables (store_runs.c). */
dj_status dj__store_load_run(dj_store *s, const char *file);
/* Appends all rows of the run tables as text to `out` (a FILE). */
dj_status dj__store_dump_runs(dj_store *s, FILE *out);

/* [a-z0-9_-]+, under DJ_NAME_BYTES. */
bool dj__drive_name_ok(const char *name);

#endif
