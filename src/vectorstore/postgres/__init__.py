"""PostgreSQL with pgvector: the store, its loading and digests, and an embedded server."""
