"""A fake of OpenAI's embeddings and chat endpoints."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.fakes.http_server import FakeServer, Request

__all__ = ["FakeOpenAI", "vector_of"]

DIMENSIONS = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
}


def vector_of(text: str, dimension: int) -> np.ndarray:
    """The vector that the fake gives for a text: the same each time, not of unit length."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    return np.random.default_rng(seed).normal(size=dimension).astype(np.float32)


class FakeOpenAI(FakeServer):
    """Answers embeddings (by hash, or by ``embed``) and chat completions (by ``chat``)."""

    def __init__(
        self,
        *,
        embed: Callable[[list[str]], np.ndarray] | None = None,
        chat: Callable[[list[dict[str, Any]]], str] = lambda _messages: "A composed answer [1].",
    ) -> None:
        super().__init__()
        self.embed = embed
        self.chat = chat

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    def respond(self, request: Request) -> tuple[int, Any]:
        if request.path == "/v1/embeddings":
            return 200, self._embeddings(request.body)
        if request.path == "/v1/chat/completions":
            return 200, self._completion(request.body)
        return 404, {"error": {"message": f"no such path {request.path}"}}

    def _embeddings(self, body: dict[str, Any]) -> dict[str, Any]:
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        if self.embed is not None:
            vectors = self.embed(texts)
        else:
            dimension = DIMENSIONS.get(body["model"], 64)
            vectors = np.stack([vector_of(text, dimension) for text in texts])
        as_base64 = body.get("encoding_format") == "base64"
        data = [
            {
                "object": "embedding",
                "index": position,
                "embedding": base64.b64encode(v.astype("<f4").tobytes()).decode()
                if as_base64
                else v.tolist(),
            }
            for position, v in enumerate(vectors)
        ]
        # The order of the rows is not promised; their index is.
        return {
            "object": "list",
            "model": body["model"],
            "data": data[::-1],
            "usage": {"prompt_tokens": 1, "total_tokens": 1},
        }

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        message = {"role": "assistant", "content": self.chat(body["messages"])}
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }
