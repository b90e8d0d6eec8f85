-- The journal of writes, one file. Every statement may run again: two processes may create it at once.

-- One row. `head` is the seq of the last entry ever made and never falls; entries up to `base` are
-- truncated, and `base_mark` is the mark that the entry `base` had. They change in the transaction that
-- inserts or deletes the entries. `reloads` counts the times that every process was asked to load its
-- FAISS copy anew from the newest snapshot.
CREATE TABLE IF NOT EXISTS state (
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    head        INTEGER NOT NULL CHECK (head >= base),
    base        INTEGER NOT NULL,
    incarnation TEXT NOT NULL,
    sealed      INTEGER NOT NULL DEFAULT 0,
    base_mark   INTEGER,
    reloads     INTEGER NOT NULL DEFAULT 0,
    boot_id     TEXT NOT NULL,
    machine_id  TEXT NOT NULL,
    host_name   TEXT NOT NULL,
    dimension   INTEGER,
    metric      TEXT,
    opened_at   REAL NOT NULL
);

-- `mark` is a number that the process which appended the entry drew when it opened the journal: two
-- copies of a journal that went separate ways may give one seq to two entries, but not with one mark.
-- `embedding` is NULL for a delete, else little-endian float32. It comes last: reading the ids and
-- times of many entries then never touches its pages.
CREATE TABLE IF NOT EXISTS entry (
    seq         INTEGER PRIMARY KEY,
    id          TEXT NOT NULL,
    appended_at REAL NOT NULL,
    mark        INTEGER NOT NULL,
    text        TEXT,
    metadata    TEXT,
    embedding   BLOB
);

-- What makes a retry the same write. The rows are in time order by their primary key.
CREATE TABLE IF NOT EXISTS operation (
    first_seq   INTEGER PRIMARY KEY,
    last_seq    INTEGER NOT NULL,
    op_id       TEXT NOT NULL UNIQUE,
    digest      BLOB NOT NULL,
    appended_at REAL NOT NULL
);

-- Truncation passes none of these: how far a store has applied, and what somebody holds on to.
CREATE TABLE IF NOT EXISTS cursor (store TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS hold (name TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;

PRAGMA user_version = 2;
