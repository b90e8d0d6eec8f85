"""The FAISS store: an index in the process, its records beside it, snapshots, and intake of foreign files.

Importing this package does not import FAISS; its modules do. Names are taken from the modules:
``store.FaissStore``, ``snapshot.write_snapshot``, ``intake.take_in``.
"""
