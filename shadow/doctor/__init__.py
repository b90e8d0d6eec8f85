"""The doctor: looks for the fifteen traps of this migration on a live pair of stores."""

from shadow.doctor.examination import examine

__all__ = ["examine"]
