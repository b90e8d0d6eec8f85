-- Evidence: what the mirrored queries showed, counted. Every process of a machine writes here.
-- Counts are sums, so the order in which processes add to them does not matter.

CREATE TABLE IF NOT EXISTS eras (
    era         INTEGER PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    opened_at   REAL NOT NULL,
    why         TEXT NOT NULL,
    settings    TEXT NOT NULL
);

-- One row per process that mirrors: what it took from its queue (issued) and what it finished
-- (resolved). The difference was lost, and counts as misses, but for the batch that a process which was
-- seen just now has at hand (under_way).
CREATE TABLE IF NOT EXISTS tallies (
    process  TEXT NOT NULL,
    era      INTEGER NOT NULL,
    judged   TEXT NOT NULL,
    offered  INTEGER NOT NULL DEFAULT 0,
    sampled  INTEGER NOT NULL DEFAULT 0,
    dropped  INTEGER NOT NULL DEFAULT 0,
    issued   INTEGER NOT NULL DEFAULT 0,
    resolved INTEGER NOT NULL DEFAULT 0,
    seen_at  REAL NOT NULL,
    under_way INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (process, era, judged)
) WITHOUT ROWID;

-- How often a figure of a store took a value. Source: live, or replay (kept apart).
CREATE TABLE IF NOT EXISTS counts (
    era     INTEGER NOT NULL,
    source  TEXT NOT NULL,
    judged  TEXT NOT NULL,
    figure  TEXT NOT NULL,
    stratum TEXT NOT NULL,
    value   REAL NOT NULL,
    n       INTEGER NOT NULL,
    PRIMARY KEY (era, source, judged, figure, stratum, value)
) WITHOUT ROWID;

-- Latencies in buckets of two percent; see latency_bucket() and bucket_ms().
CREATE TABLE IF NOT EXISTS latencies (
    era    INTEGER NOT NULL,
    source TEXT NOT NULL,
    store  TEXT NOT NULL,
    bucket INTEGER NOT NULL,
    n      INTEGER NOT NULL,
    PRIMARY KEY (era, source, store, bucket)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS causes (
    era    INTEGER NOT NULL,
    source TEXT NOT NULL,
    judged TEXT NOT NULL,
    cause  TEXT NOT NULL,
    n      INTEGER NOT NULL,
    PRIMARY KEY (era, source, judged, cause)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS minutes (
    era        INTEGER NOT NULL,
    source     TEXT NOT NULL,
    judged     TEXT NOT NULL,
    minute     INTEGER NOT NULL,
    n          INTEGER NOT NULL,
    recall_sum REAL NOT NULL,
    PRIMARY KEY (era, source, judged, minute)
) WITHOUT ROWID;

-- Different queries, by digest, up to the number that the gate can ask for.
CREATE TABLE IF NOT EXISTS queries (
    era    INTEGER NOT NULL,
    source TEXT NOT NULL,
    digest BLOB NOT NULL,
    PRIMARY KEY (era, source, digest)
) WITHOUT ROWID;

-- How many they are, so that nobody counts them for each verdict.
CREATE TABLE IF NOT EXISTS distinct_queries (
    era    INTEGER NOT NULL,
    source TEXT NOT NULL,
    n      INTEGER NOT NULL,
    PRIMARY KEY (era, source)
) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS query_counted AFTER INSERT ON queries BEGIN
    INSERT INTO distinct_queries VALUES (new.era, new.source, 1)
        ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER IF NOT EXISTS query_forgotten AFTER DELETE ON queries BEGIN
    UPDATE distinct_queries SET n = n - 1 WHERE era = old.era AND source = old.source;
END;

-- The worst comparisons, for people to look at; pruned to a bounded number.
CREATE TABLE IF NOT EXISTS worst (
    rank    INTEGER PRIMARY KEY,
    era     INTEGER NOT NULL,
    source  TEXT NOT NULL,
    judged  TEXT NOT NULL,
    at      REAL NOT NULL,
    recall  REAL NOT NULL,
    detail  TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS worst_by_recall ON worst (era, source, judged, recall);

-- The change detector of each watched figure of PostgreSQL.
CREATE TABLE IF NOT EXISTS watches (
    era      INTEGER NOT NULL,
    figure   TEXT NOT NULL,
    state    TEXT NOT NULL,
    alarm_at REAL,
    PRIMARY KEY (era, figure)
) WITHOUT ROWID;

-- `copy` is what was verified (shadow/writes/copies.py): nothing is said of any other.
CREATE TABLE IF NOT EXISTS verifications (
    id        INTEGER PRIMARY KEY,
    at        REAL NOT NULL,
    state     TEXT NOT NULL,
    rows      INTEGER NOT NULL,
    differing INTEGER NOT NULL,
    method    TEXT NOT NULL,
    detail    TEXT NOT NULL,
    copy      TEXT NOT NULL DEFAULT ''
);
