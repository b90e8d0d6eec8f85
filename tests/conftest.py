"""Fixtures of the whole suite, one plugin for each thing that tests need."""

pytest_plugins = ["tests.plugins.migrations", "tests.plugins.postgresql", "tests.plugins.tcp_proxy"]
