"""The Agricultural Advisor: a question-answering bot for smallholders in Malawi.

The bot knows one thing about storage: the port in :mod:`vectorstore.port`. Which store answers is
decided in :mod:`farming_guide.wiring`, the only module that may import the router.
"""
