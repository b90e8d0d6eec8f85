"""A store on the other side of the HTTP proxy.

The proxy (`shadow serve`) lets programs in any language share one router. This client is the port over
it, so that an application changes one setting and nothing else.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vectorstore.errors import (
    ConfigurationError,
    DeadlineExceeded,
    InvalidInput,
    StoreUnavailable,
    Unsupported,
    VectorStoreError,
)
from vectorstore.filters import Filter, check_filter
from vectorstore.remote import wire
from vectorstore.types import Answer, Metric, Query, Record, check_ms
from vectorstore.validation import (
    check_batch,
    check_id,
    check_ids,
    check_page,
    normalised_record,
    possible_ids,
    query_vector,
)

try:
    import httpx
except ImportError as error:  # pragma: no cover - the extra is installed where this is tested
    raise ConfigurationError(
        "the client of the proxy needs httpx: install shadow-cutover[serve]"
    ) from error

__all__ = ["RemoteStore"]

SCAN_PAGE_MAX = 1_000
PAUSE_S_MIN, PAUSE_S_MAX = 0.05, 1.0
# What the network may add to a deadline that the proxy keeps.
MARGIN_MS = 500.0
# The shortest and the longest deadline that the proxy takes.
TIMEOUT_MS_MIN, TIMEOUT_MS_MAX = 1.0, 3_600_000.0
# The proxy did not take these on: the same call may be made again.
RETRIED = frozenset({429, 503})
PROBLEMS: Mapping[str, type[VectorStoreError]] = {
    "deadline-exceeded": DeadlineExceeded,
    "invalid-input": InvalidInput,
    "too-large": InvalidInput,
    "unsupported": Unsupported,
    "forbidden": ConfigurationError,
    "unauthorized": ConfigurationError,
    "not-found": ConfigurationError,
}


class RemoteStore:
    """A :class:`~vectorstore.port.VectorStore` over the proxy at ``url``. Safe between threads.

    ``write_token``: what the proxy wants for writes. A call that the proxy did not take on (it is
    away, starting, draining or at its limit) is tried again for ``retry_ms``; a write carries an
    operation id, so that one which was made but not confirmed is not made twice.
    ``timeout_ms``: deadline of a call that brings none.
    """

    def __init__(
        self,
        url: str,
        *,
        write_token: str | None = None,
        timeout_ms: float = 10_000.0,
        retry_ms: float = 10_000.0,
    ) -> None:
        """Connects at once. Raises StoreUnavailable, or ConfigurationError if it is no such proxy."""
        self._timeout_ms = timeout_ms
        self._retry_ms = retry_ms
        self._headers = {"authorization": f"Bearer {write_token}"} if write_token else {}
        self._open = True
        try:
            # The proxy is named here: a proxy of the environment's is not asked.
            self._client = httpx.Client(base_url=url.rstrip("/") + "/v1/", trust_env=False)
        except httpx.InvalidURL as error:
            raise ConfigurationError(f"the proxy's address {url!r} is no URL: {error}") from error
        try:
            info = self._call("GET", "info")
            self._dimension, self._metric = int(info["dimension"]), Metric(info["metric"])
        except (KeyError, ValueError) as error:
            self.close()
            raise ConfigurationError(f"{url} is not a proxy of `shadow serve`") from error
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        return "remote"

    @property
    def dimension(self) -> int:
        return self._dimension

    @property
    def metric(self) -> Metric:
        return self._metric

    def search(self, query: Query) -> Answer:
        found = self._call("POST", "search", self._query(query), timeout_ms=query.timeout_ms)
        return wire.answer_from_wire(found)

    def search_many(self, queries: Sequence[Query]) -> list[Answer]:
        if not queries:
            return []
        timeouts = [query.timeout_ms for query in queries if query.timeout_ms is not None]
        found = self._call(
            "POST",
            "search/batch",
            {"queries": [self._query(query) for query in queries]},
            timeout_ms=min(timeouts) if timeouts else None,
        )
        return [wire.answer_from_wire(answer) for answer in found["answers"]]

    def upsert(self, records: Sequence[Record], *, op_id: str | None = None) -> int:
        check_batch(records)
        ready = [
            normalised_record(record, dimension=self._dimension, metric=self._metric)
            for record in records
        ]
        body = {
            "records": [
                {
                    "id": record.id,
                    "vector_base64": wire.vector_to_base64(record.embedding),
                    "text": record.text,
                    "metadata": dict(record.metadata),
                }
                for record in ready
            ],
            "op_id": op_id or uuid.uuid4().hex,
        }
        return int(self._call("POST", "records", body)["seq"])

    def delete(self, ids: Sequence[str], *, op_id: str | None = None) -> int:
        check_batch(ids)
        body = {
            "ids": [check_id(record_id) for record_id in ids],
            "op_id": op_id or uuid.uuid4().hex,
        }
        return int(self._call("POST", "records/delete", body)["seq"])

    def get(self, ids: Sequence[str], *, timeout_ms: float | None = None) -> list[Record]:
        check_ids(ids)
        check_ms("timeout_ms", timeout_ms)
        wanted = {"ids": possible_ids(ids), "vectors": True, **_deadline(timeout_ms)}
        found = self._call("POST", "records/get", wanted, timeout_ms=timeout_ms)
        return [wire.record_from_wire(record) for record in found["records"]]

    def scan(
        self, *, after: str = "", limit: int = 1000, timeout_ms: float | None = None
    ) -> list[Record]:
        check_page(after, limit)
        check_ms("timeout_ms", timeout_ms)
        started = time.monotonic()
        records: list[Record] = []
        left_ms: float | None = None
        while len(records) < limit:
            page = min(SCAN_PAGE_MAX, limit - len(records))
            if timeout_ms is not None:
                left_ms = max(0.0, timeout_ms - (time.monotonic() - started) * 1e3)
            found = self._call(
                "GET",
                "records",
                params={"after": after, "limit": page, "vectors": True, **_deadline(left_ms)},
                timeout_ms=left_ms,
            )["records"]
            records += [wire.record_from_wire(record) for record in found]
            if len(found) < page:
                break
            after = records[-1].id
        return records

    def count(self, filter: Filter | None = None, *, timeout_ms: float | None = None) -> int:
        check_filter(filter)
        check_ms("timeout_ms", timeout_ms)
        wanted = {"filter": wire.filter_to_wire(filter), **_deadline(timeout_ms)}
        return int(self._call("POST", "count", wanted, timeout_ms=timeout_ms)["count"])

    def describe(self, *, timeout_ms: float | None = None) -> Mapping[str, Any]:
        check_ms("timeout_ms", timeout_ms)
        found = self._call("GET", "info", params=_deadline(timeout_ms), timeout_ms=timeout_ms)
        described: Mapping[str, Any] = found["describe"]
        return described

    def close(self) -> None:
        """Close the connections. Idempotent."""
        self._open = False
        self._client.close()

    def _query(self, query: Query) -> dict[str, Any]:
        vector = query_vector(query, dimension=self._dimension, metric=self._metric)
        return {
            "vector_base64": wire.vector_to_base64(np.asarray(vector)),
            "k": query.k,
            "filter": wire.filter_to_wire(query.filter),
            "min_seq": query.min_seq,
            "label": query.label,
            "spent_ms": query.spent_ms,
            **_deadline(query.timeout_ms),
        }

    def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        timeout_ms: float | None = None,
    ) -> Any:
        """One call, made again while the proxy does not take it on and there is time."""
        started = time.monotonic()
        patience_ms = self._retry_ms if timeout_ms is None else min(timeout_ms, self._retry_ms)
        give_up_at = started + patience_ms / 1e3
        content = None if body is None else wire.encoded(body)
        headers = {**self._headers, "content-type": "application/json"} if content else {}
        pause_s = PAUSE_S_MIN
        while True:
            if not self._open:
                raise StoreUnavailable("the remote store is closed")
            allowed_ms = self._timeout_ms if timeout_ms is None else timeout_ms
            allowed_s = (allowed_ms + MARGIN_MS) / 1e3
            wait_s = pause_s
            try:
                response = self._client.request(
                    method, path, content=content, headers=headers, params=params, timeout=allowed_s
                )
            except httpx.TimeoutException as error:
                failure: VectorStoreError = DeadlineExceeded(
                    f"the proxy at {self._client.base_url.host} did not answer within "
                    f"{allowed_s * 1e3:.0f} ms"
                )
                failure.__cause__ = error
                if timeout_ms is not None:
                    raise failure from error
            except (httpx.TransportError, RuntimeError) as error:
                if not self._open:
                    raise StoreUnavailable("the remote store is closed") from error
                failure = StoreUnavailable(
                    f"the proxy at {self._client.base_url.host}:{self._client.base_url.port} cannot "
                    f"be reached ({error}); is `shadow serve` running?"
                )
                failure.__cause__ = error
            else:
                if response.status_code < 400:
                    return response.json()
                failure = _failure(response)
                if response.status_code not in RETRIED or isinstance(failure, DeadlineExceeded):
                    raise failure
                wait_s = max(pause_s, min(_retry_after_s(response), PAUSE_S_MAX))
            if time.monotonic() + wait_s >= give_up_at:
                raise failure
            # Clients that failed together must not come back together.
            time.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
            pause_s = min(pause_s * 2, PAUSE_S_MAX)


def _deadline(timeout_ms: float | None) -> dict[str, float]:
    """A deadline as the proxy takes it: one that has all but passed is its shortest, not a wrong one."""
    if timeout_ms is None:
        return {}
    return {"timeout_ms": min(max(timeout_ms, TIMEOUT_MS_MIN), TIMEOUT_MS_MAX)}


def _retry_after_s(response: httpx.Response) -> float:
    value = response.headers.get("retry-after", "")
    return float(value) if value.isdigit() else 0.0


def _failure(response: httpx.Response) -> VectorStoreError:
    """The error that a problem document (RFC 9457) stands for."""
    try:
        problem = response.json()
        kind, detail = str(problem["type"]).rpartition("/")[2], str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        kind, detail = "", f"the proxy answered with status {response.status_code}"
    return PROBLEMS.get(kind, StoreUnavailable)(detail)
