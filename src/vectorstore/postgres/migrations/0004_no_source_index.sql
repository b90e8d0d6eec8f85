-- No statement of this program reads it (the index of the metadata answers filters), and an insert walks
-- through all entries of the same document: 400,000 rows of one document took thirty times as long.
DROP INDEX IF EXISTS {source_index};
