-- The records. Ids compare by bytes, so that ranges mean the same here and in every client.
CREATE TABLE {table} (
    id text COLLATE "C" PRIMARY KEY,
    seq bigint NOT NULL,
    embedding vector({dimension}) NOT NULL,
    text text NOT NULL,
    metadata jsonb NOT NULL,
    source_document text GENERATED ALWAYS AS (metadata ->> 'source_document') STORED
);

-- Vectors stay in the row: exact search reads four times faster than from the TOAST table. With MAIN
-- it is text and metadata that leave a row which grows too long for its page.
ALTER TABLE {table} SET (toast_tuple_target = 8160);
ALTER TABLE {table} ALTER COLUMN embedding SET STORAGE {storage};

CREATE INDEX {metadata_index} ON {table} USING gin (metadata jsonb_path_ops);

-- A hash index takes values of any length; a B-tree would refuse the row.
CREATE INDEX {source_index} ON {table} USING hash (source_document);
