"""The one error tree of the project.

::

    VectorStoreError
    ├── InvalidInput          a record, id, filter or query that no store may accept; nothing was written
    ├── ConfigurationError    a setting, credential, extension or permission is wrong; nothing was started
    ├── IntakeRefused         a foreign index or side file cannot be taken in without loss
    ├── StoreCorrupt          files or rows do not match their checksums or each other
    ├── Unsupported           this store or index cannot do what was asked
    └── StoreUnavailable      the store did not answer; the same call may succeed later
        └── DeadlineExceeded  it did not answer in the time allowed

The router adds its own leaves in ``shadow.errors``. Every message says what happened, why, and what
to do. Driver errors are chained as ``__cause__``; credentials are masked before they reach a message.
"""

from __future__ import annotations

__all__ = [
    "ConfigurationError",
    "DeadlineExceeded",
    "IntakeRefused",
    "InvalidInput",
    "StoreCorrupt",
    "StoreUnavailable",
    "Unsupported",
    "VectorStoreError",
]


class VectorStoreError(Exception):
    """Root of every error that this project raises on purpose."""


class InvalidInput(VectorStoreError, ValueError):
    """A record, id, filter or query was refused before anything was written."""


class ConfigurationError(VectorStoreError):
    """A setting, credential, extension or permission is wrong; nothing was started."""


class IntakeRefused(VectorStoreError):
    """A foreign index or side file cannot be taken in without loss or risk."""


class StoreCorrupt(VectorStoreError):
    """Files or rows do not match their checksums or each other."""


class Unsupported(VectorStoreError):
    """This store or index cannot do what was asked."""


class StoreUnavailable(VectorStoreError):
    """The store did not answer; the same call may succeed later."""


class DeadlineExceeded(StoreUnavailable):
    """The store did not answer in the time that the caller allowed."""
