"""Backups of a whole migration: taking, listing, and going back to one."""
