"""
What callers learn of batches.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Literal

from attrs import field

from durable._core.codec.codec import Codec
from durable._core.light_frozen import late_frozen
from durable._core.statuses import EndStatus
from durable._shell.backend import Backend
from durable._shell.reads import batch_rows
from durable._shell.reads.batch_rows import BatchRow


@late_frozen
class BatchInfo:
    """
    A batch as it stood when it was read. Instants are epoch seconds, UTC.

    Attributes:
        batch_id: Its id.
        description: As given.
        labels: As given.
        parent: Id of the batch that it is nested in.
        status: ``complete`` once all members and nested batches have ended; then it takes no members any more.
        total: Members, those of nested batches not among them.
        pending: How many of them have not ended,
        succeeded: or have succeeded,
        failed: have failed permanently,
        cancelled: or were cancelled.
        created_at: When its block ended.
        cancelled_at: When `cancel` was asked for.
        reason: Why, as given there.
        completed_at: When the last member and nested batch had ended.
        finished_at: When its callbacks had ended, too.
        outcome: How it ended, once it is finished. A nested batch or a callback that failed makes it ``failed``.
        cursor: Where a page that begins behind this batch continues: ``engine.batches(after=info.cursor)``.
    """

    batch_id: str
    description: str
    labels: Mapping[str, str]
    parent: str | None
    status: Literal["open", "complete"]
    total: int
    pending: int
    succeeded: int
    failed: int
    cancelled: int
    created_at: float
    cancelled_at: float | None
    reason: str | None
    completed_at: float | None
    finished_at: float | None
    outcome: EndStatus | None
    cursor: int = field(default=0, repr=False)


def batch_info(row: BatchRow, codec: Codec) -> BatchInfo:
    """A row as callers see it."""
    outcome: Any = row.outcome  # the file holds nothing else
    return BatchInfo(
        batch_id=row.batch_id,
        description=row.description,
        labels=row.labels,
        parent=row.parent,
        status="open" if row.completed_at is None else "complete",
        total=sum(row.members.values()),
        pending=row.pending,
        succeeded=row.members.get("succeeded", 0),
        failed=row.members.get("failed", 0),
        cancelled=row.members.get("cancelled", 0),
        created_at=row.created_at,
        cancelled_at=row.cancelled_at,
        reason=None if row.reason is None else codec.reveal(row.reason),
        completed_at=row.completed_at,
        finished_at=row.finished_at,
        outcome=None if row.finished_at is None else outcome,
        cursor=row.batch,
    )


async def list_all(
    backend: Backend, labels: Mapping[str, str] | None, description: str | None, limit: int | None, after: int | None
) -> AsyncIterator[BatchInfo]:
    """Batches, newest first, read page by page."""
    left, before = limit, after
    while left is None or left > 0:
        size = 200 if left is None else min(200, left)
        page = await backend.read(batch_rows.list_batches, labels or {}, description, before, size)
        for row in page:
            yield batch_info(row, backend.codec)
        if len(page) < size:
            return
        before = page[-1].batch
        left = None if left is None else left - len(page)
