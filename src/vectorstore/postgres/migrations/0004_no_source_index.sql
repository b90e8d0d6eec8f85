-- No statement of this program reads it (the index of the metadata answers filters), and an insert walks
-- through the entries of all rows of the same document, so that to load one takes the square of its rows.
DROP INDEX IF EXISTS {source_index};
