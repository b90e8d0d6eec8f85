"""What bounds the figures of each part, in words, for the page."""

from __future__ import annotations

__all__ = ["EXPLAINED"]

EXPLAINED = {
    "reads": (
        "A flat FAISS search is one pass over the rows in memory: dimensions times rows times four "
        "bytes, at the speed of the memory and of one core's vector unit. Exact search in PostgreSQL "
        "makes the same pass and pays for each row's tuple header, visibility check and function "
        "call, about a fifth of a microsecond beside the arithmetic, and once per query for a round "
        "trip between two processes. The router adds a few attribute reads, no lock and no I/O."
    ),
    "mirror": (
        "Python runs one thread at a time: while the mirror's thread holds the interpreter, a reader "
        "waits for it. The caller pays for a draw and, if it is sampled, a copy of the vector and a "
        "queue append; the rest is bounded by `mirror.cpu_share_max`, of which a busy process gives only "
        "a twentieth. The thread gathers sixteen queries, or those of a quarter of a second, so that one "
        "wake-up and one transaction serve many, and pauses for a moment after each comparison, so that no "
        "reader waits for more than one. When it has taken a twentieth of a core for three "
        "seconds, a process of its own asks PostgreSQL in its stead (`mirror.own_process`; the rows "
        "*from a thread* are without it), and only comparing and counting are left in the reader's "
        "process. In the closed loop half the blocks are without the mirror, so its budget is half of the "
        "default: while it is on it takes what the default allows. What remains at the 99th percentile on two cores is the processor time of the server "
        "and of that process beside the reader: a server on the same machine is not free. *The call "
        "alone* leaves out how late the application itself came to make the call; a user waits for "
        "both. While the shadow hangs, nothing runs beside the reader, and the percentile is that of the "
        "mirror switched off. *Off a round before* holds the mirror switched off against itself: its "
        "quartiles are what the machine does of its own accord."
    ),
    "wire": (
        "The floor is the server's execution time. How far above it raw psycopg lies (its own row) is "
        "the round trip: where waking another process is dear, as in a virtual machine, it alone is more "
        "than the third that is asked for, whatever the client does. Above the floor lie one round trip "
        "(two context switches and a socket), the vector as binary (2 us), ten rows decoded (text and "
        "JSON, the larger part), the pool, and the deadline that is kept on the socket. Vectors that stay "
        "in the row save a look-up and a copy per row; a vector as text costs its printing and its "
        "parsing, and a connection costs a process on the server. The rows without a target bound "
        "those that have one: *server execution time, default storage* over the same with the vectors in "
        "the row is what a client could gain by storage that took no time of its own, and the naive ways "
        "over *raw psycopg* are what one could gain that took no more time than that."
    ),
    "backfill": (
        "One backend's COPY is bound by the server: WAL, index entries (primary key and GIN) "
        "and page writes. The client reads rows from a mapped snapshot and needs about a fifth of that in "
        "processor time, which overlaps with the server where a core is free. Blocks are committed "
        "without waiting for the disk (their progress is in the same transaction), so one worker may "
        "come out above the server's own COPY, which waits once for all of its log at the end. Two "
        "workers need three free cores to reach their best; on two, four busy processes share them "
        "(*cores busy*, the start of the workers included). "
        "The loader's processes run at a lower priority, so where other work fills the machine they, "
        "unlike the server's COPY, are the ones that wait. The server's own part cannot be given a "
        "priority from outside: on a machine that is shared with it, `--p99-ms-max` is what protects "
        "the primary, at the rate shown."
    ),
    "writes": (
        "An acknowledgement is one fdatasync: the disk bounds it. The journal is an SQLite file, so the "
        "rows *SQLite alone* are as low as it can come: the same rows in a transaction of the bare "
        "driver, which writes each page into its log with a checksum. On a disk that syncs in a "
        "tenth of a millisecond this alone is above what a batch should take, and on a slower disk all "
        "of it counts for less. What threads write at once shares one commit, and one of them brings all "
        "of it to the stores. With PostgreSQL answering, a writer also waits for its own row's commit "
        "there: two durable commits, one after the other, are what reading one's own write from the "
        "other store costs (*bare SQLite, then PostgreSQL* is that and nothing else). Writes are measured "
        "in a thread, as a service makes them; what the main thread of a process writes is handed to "
        "another thread, so that no handler of a signal can break it off halfway, and costs that much "
        "more (*in the main thread*). FAISS overwrites a "
        "row where it lies, whatever the size of the index."
    ),
    "crossing": (
        "An exact search reads every row; an HNSW search reads some hundreds, however many there are, and "
        "may miss one. Up to `postgresql.exact_rows_max` (1,000) the router builds no index: there the "
        "difference is about a millisecond at most, the answer is perfect, and a write keeps no graph."
    ),
    "verify": (
        "Both halves run at the same time: the server digests the next ranges in two connections "
        "while this process digests one. Most of the server's part is turning each vector into its "
        "wire form, which SQL cannot go without (its own row above); the client does the "
        "same to its own and writes metadata as canonical text. On two cores the whole cannot take "
        "less than half the sum of *server digests, one connection* and *FAISS digests alone*, which "
        "is what bounds it; with more cores, or the server elsewhere, it is half of the server's part, or "
        "the client's whole. Comparing by text costs the server its printing and the client the same "
        "printing again, in Python; so the whole is held against the whole, the server's part against the "
        "server's, and the whole against what the server alone takes for its text. (*one process* is without the parallel workers that the server may take for it.) "
        "crc32c finds accidents, not forgery: sha256 is "
        "there for that, at its price."
    ),
    "gate": (
        "The gate's state is the number of times that each value of a figure was seen: at most k + 1 "
        "numbers a figure, whatever the traffic. It is read by one query and bisected; nothing is "
        "scanned again."
    ),
    "end to end": "The embedding bounds it: several milliseconds offline, tens to hundreds by network.",
    "start": (
        "The command line imports no store and no model before a command needs one: half of what is "
        "left is the interpreter and typer. Opening an index reads every byte twice, once for its "
        "sha256 and once into memory, parses a line of JSON per record and looks at the length of "
        "each vector. Beyond index and texts a record costs about 500 bytes: its metadata as a "
        "dictionary, its id, and the way from the id to its position."
    ),
    "growth": (
        "Exact search is proportional to rows and to dimensions once the constant part of a query is "
        "small beside it: about 10 us in FAISS and 100 to 200 us over a wire, which is why the "
        "exponents of small sizes lie below 1. k costs little until rows are carried to the client: "
        "there PostgreSQL sends text and metadata and FAISS copies a small dictionary for each. The router's own time "
        "is what its code takes, and nothing in it depends on the rows; but a scan that is larger than "
        "the processor's caches leaves that code to be fetched from memory anew, which is why it takes "
        "microseconds more beside a scan of milliseconds."
    ),
}
