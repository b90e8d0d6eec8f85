-- Who answers, what is wanted, and who decided it. In the journal's file, so that a flip and the
-- journal's head that it rests on are one transaction.

CREATE TABLE IF NOT EXISTS routes (
    version     INTEGER PRIMARY KEY,
    phase       TEXT NOT NULL,
    ramp_share  REAL NOT NULL,
    mirror_rate REAL NOT NULL,
    flip_seq    INTEGER NOT NULL,
    rehearsing_until REAL
);

CREATE TABLE IF NOT EXISTS requests (
    id           INTEGER PRIMARY KEY,
    wanted       TEXT NOT NULL,
    who          TEXT NOT NULL,
    why          TEXT NOT NULL,
    force_reason TEXT
);

-- One row: the last value of PRIMARY that a starting process brought, and the latch.
CREATE TABLE IF NOT EXISTS standing (
    one          INTEGER PRIMARY KEY CHECK (one = 1),
    primary_seen TEXT,
    latch        TEXT
);
INSERT OR IGNORE INTO standing (one) VALUES (1);

CREATE TABLE IF NOT EXISTS audit (
    id       INTEGER PRIMARY KEY,
    at       REAL NOT NULL,
    who      TEXT NOT NULL,
    what     TEXT NOT NULL,
    why      TEXT NOT NULL,
    evidence TEXT NOT NULL
);
