"""
How a file of an older schema becomes one of today's: one script for each version left behind.

Run inside the one transaction of the opening. A script is never changed once it was released;
tests compare what they make with what `schema` creates afresh.
"""

from __future__ import annotations

import sqlite3

from durable._core.journal.events import KIND_NAMES

_FROM_1 = """
ALTER TABLE durable_runs ADD COLUMN place REAL NOT NULL DEFAULT 0;
ALTER TABLE durable_runs ADD COLUMN key_until REAL;
ALTER TABLE durable_runs ADD COLUMN retry TEXT;
ALTER TABLE durable_runs ADD COLUMN follows INTEGER;
ALTER TABLE durable_runs ADD COLUMN follow_ups TEXT;
ALTER TABLE durable_runs ADD COLUMN batch INTEGER;
ALTER TABLE durable_runs ADD COLUMN callback INTEGER;
ALTER TABLE durable_runs ADD COLUMN limit_name TEXT;
ALTER TABLE durable_runs ADD COLUMN limit_key TEXT;
DROP INDEX durable_runs_ready;
CREATE INDEX durable_runs_ready ON durable_runs (queue, priority DESC, place, ready_at, run) WHERE ready_at IS NOT NULL;
CREATE INDEX durable_runs_follows ON durable_runs (follows) WHERE follows IS NOT NULL;
CREATE TABLE durable_feeds (
    run INTEGER NOT NULL,
    position TEXT NOT NULL,
    size INTEGER NOT NULL,
    grp TEXT NOT NULL,
    wake_on TEXT NOT NULL,
    template TEXT NOT NULL,
    PRIMARY KEY (run, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE durable_feed_items (
    run INTEGER NOT NULL,
    position TEXT NOT NULL,
    item INTEGER NOT NULL,
    child INTEGER NOT NULL,
    child_id TEXT NOT NULL,
    value ANY,
    PRIMARY KEY (run, position, item)
) STRICT, WITHOUT ROWID;

CREATE TABLE durable_schedules (
    name TEXT PRIMARY KEY,
    spec TEXT NOT NULL,
    timezone TEXT NOT NULL,
    anchor REAL NOT NULL,
    upto REAL NOT NULL,
    next_at REAL,
    last_at REAL,
    last_run TEXT,
    open_runs TEXT NOT NULL DEFAULT '[]',
    paused_at REAL,
    skipped INTEGER NOT NULL DEFAULT 0,
    last_skipped_at REAL,
    last_error TEXT,
    triggers TEXT NOT NULL DEFAULT '[]'
) STRICT;
CREATE INDEX durable_runs_batch ON durable_runs (batch, status) WHERE batch IS NOT NULL;
CREATE INDEX durable_runs_callback ON durable_runs (callback, status) WHERE callback IS NOT NULL;
CREATE TABLE durable_batches (
    batch INTEGER PRIMARY KEY AUTOINCREMENT,
    batch_id TEXT NOT NULL UNIQUE,
    parent INTEGER,
    description TEXT NOT NULL,
    labels TEXT,
    contents TEXT,
    created_at REAL NOT NULL,
    cancelled_at REAL,
    reason TEXT,
    failed_at REAL,
    completed_at REAL,
    finished_at REAL,
    outcome TEXT,
    on_success TEXT,
    on_failure TEXT,
    on_complete TEXT
) STRICT;
CREATE INDEX durable_batches_parent ON durable_batches (parent) WHERE parent IS NOT NULL;
CREATE INDEX durable_batches_unfinished ON durable_batches (parent) WHERE finished_at IS NULL AND parent IS NOT NULL;
CREATE TABLE durable_limits (
    name TEXT PRIMARY KEY,
    concurrency INTEGER,
    count INTEGER,
    per REAL,
    on_conflict TEXT NOT NULL
) STRICT;
CREATE TABLE durable_slots (
    slot INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    key TEXT NOT NULL,
    run INTEGER NOT NULL,
    position TEXT NOT NULL,
    since REAL NOT NULL,
    granted_at REAL,
    due_at REAL,
    leaving INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX durable_slots_run ON durable_slots (run, position);
CREATE INDEX durable_slots_waiting ON durable_slots (name, key, slot) WHERE granted_at IS NULL;
CREATE INDEX durable_slots_held ON durable_slots (name, key) WHERE granted_at IS NOT NULL;
CREATE INDEX durable_slots_due ON durable_slots (due_at) WHERE due_at IS NOT NULL;
CREATE TABLE durable_grants (
    name TEXT NOT NULL,
    key TEXT NOT NULL,
    at REAL NOT NULL
) STRICT;
CREATE INDEX durable_grants_key ON durable_grants (name, key, at);
CREATE INDEX durable_grants_at ON durable_grants (name, at);
"""
_FROM_2 = """
CREATE TABLE durable_requests (
    id TEXT PRIMARY KEY,
    answer TEXT NOT NULL,
    at REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX durable_requests_at ON durable_requests (at);
"""
_FROM_3 = """
ALTER TABLE durable_runs ADD COLUMN unread TEXT;
ALTER TABLE durable_runs ADD COLUMN on_parent_end TEXT;
ALTER TABLE durable_runs ADD COLUMN abandoned TEXT;
ALTER TABLE durable_runs ADD COLUMN compensated INTEGER NOT NULL DEFAULT 0;
ALTER TABLE durable_slots ADD COLUMN outlived INTEGER NOT NULL DEFAULT 0;
CREATE INDEX durable_runs_tied ON durable_runs (parent) WHERE on_parent_end = 'cancel';
CREATE INDEX durable_events_payload ON durable_events (payload) WHERE payload IS NOT NULL;
CREATE INDEX durable_inbox_payload ON durable_inbox (payload) WHERE payload IS NOT NULL;
ALTER TABLE durable_requests ADD COLUMN refused INTEGER NOT NULL DEFAULT 0;
CREATE TABLE durable_hook_errors (
    entry INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    hook TEXT NOT NULL,
    error TEXT NOT NULL,
    at REAL NOT NULL,
    starts TEXT,
    asked_at REAL
) STRICT;
CREATE INDEX durable_hook_errors_run ON durable_hook_errors (run);
ALTER TABLE durable_schedules ADD COLUMN failed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE durable_queues ADD COLUMN fair_by TEXT;
ALTER TABLE durable_feeds ADD COLUMN tolerate INTEGER;
ALTER TABLE durable_queues ADD COLUMN changed TEXT;
ALTER TABLE durable_limits ADD COLUMN own TEXT;
ALTER TABLE durable_schedules ADD COLUMN overlap TEXT;
ALTER TABLE durable_schedules ADD COLUMN missed TEXT;
ALTER TABLE durable_schedules ADD COLUMN starts TEXT;
ALTER TABLE durable_runs ADD COLUMN timeout REAL;
ALTER TABLE durable_runs ADD COLUMN expires_at REAL;
-- A timeout counted from the start of a run: now it does from when a workflow begins, and for each attempt of a job.
UPDATE durable_runs SET timeout = deadline.seconds
FROM (SELECT run, fire_at - since AS seconds FROM durable_waits WHERE kind = 'deadline') AS deadline
WHERE durable_runs.run = deadline.run;
DELETE FROM durable_waits WHERE kind = 'deadline'
    AND run IN (SELECT run FROM durable_runs WHERE sort = 'job' OR started_at IS NULL);
UPDATE durable_waits SET fire_at = fire_at + begun.started_at - since, since = begun.started_at
FROM (SELECT run, started_at FROM durable_runs) AS begun WHERE durable_waits.run = begun.run AND kind = 'deadline';
ALTER TABLE durable_runs ADD COLUMN key_ttl REAL;
CREATE TABLE durable_keys (
    key TEXT PRIMARY KEY,
    run_id TEXT NOT NULL,
    workflow TEXT NOT NULL,
    arguments TEXT,
    status TEXT NOT NULL,
    until REAL
) STRICT, WITHOUT ROWID;
ALTER TABLE durable_slots ADD COLUMN aside INTEGER NOT NULL DEFAULT 0;
DROP INDEX durable_slots_waiting;
CREATE INDEX durable_slots_waiting ON durable_slots (name, key, slot) WHERE granted_at IS NULL AND aside = 0;
ALTER TABLE durable_runs ADD COLUMN progress TEXT;
ALTER TABLE durable_runs ADD COLUMN said INTEGER NOT NULL DEFAULT 0;
CREATE TABLE durable_stream_items (
    entry INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    stream TEXT NOT NULL,
    position TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    value ANY,
    at REAL NOT NULL
) STRICT;
CREATE INDEX durable_stream_items_run ON durable_stream_items (run, stream);
CREATE TABLE durable_renewed (
    run INTEGER PRIMARY KEY,
    checksum INTEGER NOT NULL
) STRICT;
ALTER TABLE durable_runs ADD COLUMN forked_from TEXT;
-- In the order of events: of a fork of a fork, the last one counts.
UPDATE durable_runs SET forked_from = source
FROM (SELECT run, max(id), json_extract(body, '$[0]') AS source FROM durable_events
      WHERE kind = 8 AND json_valid(body) GROUP BY run) AS forked
WHERE forked.run = durable_runs.run;
CREATE TABLE durable_asked (
    request TEXT PRIMARY KEY,
    run INTEGER NOT NULL,
    name TEXT NOT NULL,
    dedup TEXT,
    digest TEXT NOT NULL,
    answer ANY,
    refused INTEGER NOT NULL DEFAULT 0,
    asked_at REAL NOT NULL,
    answered_at REAL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX durable_asked_run ON durable_asked (run, dedup);
ALTER TABLE durable_runs ADD COLUMN checksum INTEGER;
ALTER TABLE durable_waits ADD COLUMN checksum INTEGER;
ALTER TABLE durable_inbox ADD COLUMN checksum INTEGER;
ALTER TABLE durable_notes ADD COLUMN checksum INTEGER;
ALTER TABLE durable_feeds ADD COLUMN checksum INTEGER;
ALTER TABLE durable_feed_items ADD COLUMN checksum INTEGER;
ALTER TABLE durable_schedules ADD COLUMN checksum INTEGER;
ALTER TABLE durable_batches ADD COLUMN checksum INTEGER;
ALTER TABLE durable_slots ADD COLUMN checksum INTEGER;
ALTER TABLE durable_limits ADD COLUMN checksum INTEGER;
ALTER TABLE durable_queues ADD COLUMN checksum INTEGER;
ALTER TABLE durable_keys ADD COLUMN checksum INTEGER;
CREATE INDEX durable_keys_damaged ON durable_keys (checksum) WHERE checksum < 0;
ALTER TABLE durable_dedup ADD COLUMN checksum INTEGER;
ALTER TABLE durable_asked ADD COLUMN checksum INTEGER;
ALTER TABLE durable_stream_items ADD COLUMN checksum INTEGER;
ALTER TABLE durable_requests ADD COLUMN checksum INTEGER;
ALTER TABLE durable_hook_errors ADD COLUMN checksum INTEGER;
CREATE INDEX durable_runs_published ON durable_runs (run, checksum)
    WHERE attributes IS NOT NULL AND ended_at IS NULL;
CREATE INDEX durable_notes_open ON durable_notes (run, position, name, checksum) WHERE name NOT GLOB 'kept:*';
"""

_FROM_4 = """
CREATE INDEX durable_runs_open ON durable_runs (run) WHERE ended_at IS NULL;
DROP INDEX durable_runs_published;
CREATE INDEX durable_runs_published ON durable_runs (run, checksum)
    WHERE attributes IS NOT NULL AND ended_at IS NULL;
CREATE INDEX durable_runs_workflow ON durable_runs (workflow);
CREATE INDEX durable_runs_created ON durable_runs (created_at);
CREATE TABLE durable_ended (
    workflow TEXT NOT NULL,
    status TEXT NOT NULL,
    runs INTEGER NOT NULL,
    PRIMARY KEY (workflow, status)
) STRICT, WITHOUT ROWID;
CREATE TABLE durable_labels (
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    run INTEGER NOT NULL,
    PRIMARY KEY (name, value, run)
) STRICT, WITHOUT ROWID;
"""


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """Bring a file of schema *version* up to date. The caller commits, or rolls back."""
    # One script, as `executescript` commits what is open before it begins.
    connection.executescript("BEGIN IMMEDIATE;" + "".join((_FROM_1, _FROM_2, _FROM_3, _FROM_4)[version - 1 :]))
    connection.executemany("INSERT OR IGNORE INTO durable_kinds VALUES (?, ?)", KIND_NAMES.items())
