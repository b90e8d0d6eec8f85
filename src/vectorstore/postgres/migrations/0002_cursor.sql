-- One row: which journal this table follows, how far it has applied it, and what the table is to it.
-- Its row lock is the lock that every writer of the table takes first.
CREATE TABLE {cursor} (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    incarnation text,
    seq bigint NOT NULL DEFAULT 0,
    state text NOT NULL DEFAULT 'empty'
        CHECK (state IN ('empty', 'loading', 'following', 'detached', 'final')),
    metric text NOT NULL,
    load_snapshot text,
    load_seq bigint,
    updated_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO {cursor} (metric) VALUES ({metric});

-- How far each part of a load has come; empty when no load is open.
CREATE TABLE {load} (
    part integer PRIMARY KEY,
    position bigint NOT NULL DEFAULT 0
);
