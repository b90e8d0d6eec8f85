-- What tells the journal's entry `seq` from that of another copy of the journal; NULL if not known yet.
ALTER TABLE {cursor} ADD COLUMN mark bigint;
