"""The demonstration: a bot's knowledge base carried through a whole migration under live traffic."""

from farming_guide.demo.story import main

__all__ = ["main"]
