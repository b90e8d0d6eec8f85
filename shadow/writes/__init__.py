"""The write path: the journal, and what follows it."""
