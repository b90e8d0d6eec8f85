"""The router as a service: HTTP proxy, dashboard and metrics. Needs the extra `serve`."""
