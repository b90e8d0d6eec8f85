"""Make FAISS folders with the frameworks' real classes, and note what they answer.

    python make_foreign_folders.py OUT

Runs in an environment of its own that has langchain-community, llama-index-vector-stores-faiss and
faiss-cpu: the tests build one, so that neither framework's old FAISS class enters the project's.
Under OUT it writes, for `langchain`, `langchain_ip` and `llamaindex`: the folder that the class saved,
and beside it `NAME.json` (ids, texts, metadata, the ids answered to each query) and `NAME.npz`
(`vectors`, `queries`).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import faiss
import numpy as np
from langchain_community.vectorstores import FAISS
from langchain_community.vectorstores.utils import DistanceStrategy
from langchain_core.embeddings import Embeddings
from llama_index.core import (
    MockEmbedding,
    StorageContext,
    VectorStoreIndex,
    load_index_from_storage,
)
from llama_index.core.schema import QueryBundle, TextNode
from llama_index.vector_stores.faiss import FaissVectorStore

ROWS = 400
DIMENSION = 48
QUERIES = 40
K = 10


class Table(Embeddings):
    """Embeds `word 17` as row 17 of a table of vectors."""

    def __init__(self, vectors: np.ndarray) -> None:
        self._vectors = vectors

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self._vectors[int(text.split()[-1])].tolist()


def main(out: Path) -> None:
    rng = np.random.default_rng(8)
    vectors = rng.normal(size=(ROWS, DIMENSION)).astype(np.float32)
    queries = rng.normal(size=(QUERIES, DIMENSION)).astype(np.float32)
    texts = [f"chimanga – maize {row}" for row in range(ROWS)]
    metadatas = [
        {"page": row % 7, "source": f"guide {row % 3}", "tags": ["a"]} for row in range(ROWS)
    ]
    langchain_folder(
        out, "langchain", DistanceStrategy.EUCLIDEAN_DISTANCE, vectors, queries, texts, metadatas
    )
    langchain_folder(
        out, "langchain_ip", DistanceStrategy.MAX_INNER_PRODUCT, vectors, queries, texts, metadatas
    )
    llamaindex_folder(out, vectors, queries, texts, metadatas)


def langchain_folder(
    out: Path,
    name: str,
    strategy: DistanceStrategy,
    vectors: np.ndarray,
    queries: np.ndarray,
    texts: list[str],
    metadatas: list[dict],
) -> None:
    """Half of the rows at once, then deletes, which renumber the rest, then the other half."""
    half = ROWS // 2
    ids = [f"doc-{row}" for row in range(ROWS)]
    store = FAISS.from_texts(
        texts[:half], Table(vectors), metadatas[:half], ids[:half], distance_strategy=strategy
    )
    gone = set(range(0, half, 9))
    store.delete([ids[row] for row in sorted(gone)])
    store.add_texts(texts[half:], metadatas[half:], ids=ids[half:])
    store.save_local(str(out / name))
    again = FAISS.load_local(
        str(out / name),
        Table(vectors),
        allow_dangerous_deserialization=True,
        distance_strategy=strategy,
    )
    answers = [
        [document.id for document in again.similarity_search_by_vector(query.tolist(), k=K)]
        for query in queries
    ]
    kept = [row for row in range(ROWS) if row not in gone]
    note(
        out,
        name,
        ids=[ids[row] for row in kept],
        texts=[texts[row] for row in kept],
        metadatas=[metadatas[row] for row in kept],
        answers=answers,
        vectors=vectors[kept],
        queries=queries,
    )


def llamaindex_folder(
    out: Path, vectors: np.ndarray, queries: np.ndarray, texts: list[str], metadatas: list[dict]
) -> None:
    """A VectorStoreIndex over FaissVectorStore, persisted with its document and index stores."""
    # Lists of values are not allowed in LlamaIndex's metadata.
    flat = [{key: about[key] for key in ("page", "source")} for about in metadatas]
    nodes = [
        TextNode(
            id_=f"node-{row}", text=texts[row], metadata=flat[row], embedding=vectors[row].tolist()
        )
        for row in range(ROWS)
    ]
    embedding = MockEmbedding(embed_dim=DIMENSION)
    storage = StorageContext.from_defaults(
        vector_store=FaissVectorStore(faiss_index=faiss.IndexFlatL2(DIMENSION))
    )
    index = VectorStoreIndex(nodes, storage_context=storage, embed_model=embedding)
    folder = out / "llamaindex"
    index.storage_context.persist(persist_dir=str(folder))
    again = load_index_from_storage(
        StorageContext.from_defaults(
            vector_store=FaissVectorStore.from_persist_dir(str(folder)), persist_dir=str(folder)
        ),
        embed_model=embedding,
    )
    retriever = again.as_retriever(similarity_top_k=K)
    answers = []
    for query in queries:
        bundle = QueryBundle(query_str="", embedding=query.tolist())
        answers.append([scored.node.node_id for scored in retriever.retrieve(bundle)])
    note(
        out,
        "llamaindex",
        ids=[node.node_id for node in nodes],
        texts=texts,
        metadatas=flat,
        answers=answers,
        vectors=vectors,
        queries=queries,
    )


def note(
    out: Path, name: str, *, vectors: np.ndarray, queries: np.ndarray, **facts: object
) -> None:
    (out / f"{name}.json").write_text(json.dumps(facts), encoding="utf-8")
    np.savez(out / f"{name}.npz", vectors=vectors, queries=queries)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
