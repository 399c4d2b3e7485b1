"""
Tables and views of the journal, and how older files are brought up to date.

All tables are STRICT and begin with `durable_`: the application's own live beside them in the
same file. Times are epoch seconds, UTC. `durable_events` is append-only; everything else is
what scheduling and lists need, written in the same transaction as the events that change it.

A rowid table with a unique (run, seq) index measured two to three times faster than
WITHOUT ROWID for appends. Indexes are partial wherever most rows need none, so that a
finished run costs its row, its id and its events.

Whose file it is, and of which schema, is known by `marks`: an older one is migrated here, in one transaction.
"""

from __future__ import annotations

import sqlite3

from durable._core.journal.events import KIND_NAMES
from durable._shell.storage.copies.backups import continue_backup, is_backup
from durable._shell.storage.copies.marks import APPLICATION_ID, SCHEMA_ROW, SCHEMA_VERSION, schema_of
from durable._shell.storage.run_counts import count_anew, count_missing
from durable._shell.storage.seals import keep_seals, seal_older

_TABLES = """
CREATE TABLE durable_meta (
    name TEXT PRIMARY KEY,            -- schema, created_at, commits (counts commit groups, see `commits`), backup, ...
    value ANY
) STRICT;

CREATE TABLE durable_runs (
    run INTEGER PRIMARY KEY,          -- number, in order of creation
    run_id TEXT NOT NULL UNIQUE,
    workflow TEXT NOT NULL,           -- name of the workflow or job
    version INTEGER NOT NULL,
    sort TEXT NOT NULL,               -- workflow | job
    status TEXT NOT NULL,             -- pending running waiting paused blocked succeeded failed cancelled
    queue TEXT NOT NULL,
    priority INTEGER NOT NULL,        -- higher goes first
    place REAL NOT NULL DEFAULT 0,    -- among runs of one priority: lower goes first, see `admission`
    ready_at REAL,                    -- since when it could go on; NULL while freed, paused, blocked or ended
    key TEXT,
    key_live TEXT,                    -- the key while it is this run's; NULL once another took it over
    key_until REAL,                   -- when it may be taken over; NULL is never, unless key_ttl says so
    arguments TEXT,                   -- digest of its arguments, to tell one key's callers apart
    parent INTEGER,                   -- run that started it
    position TEXT,                    -- where the parent did
    labels TEXT,                      -- JSON object, or NULL
    attributes ANY,                   -- payload of `set_attributes`, or NULL
    reason TEXT,                      -- why it is blocked, failed or cancelled
    successor TEXT,                   -- id of the run it continued as
    retry TEXT,                       -- JSON: its own retry policy, if it was started with one
    timeout REAL,                     -- seconds: of a workflow from when it begins; of each attempt of a job
    expires_at REAL,                  -- when it is given up if it has not begun
    follows INTEGER,                  -- run whose end started it (`op.then`, a hook)
    follow_ups TEXT,                  -- JSON list of the runs that its success starts
    batch INTEGER,                    -- batch that it is a member of
    callback INTEGER,                 -- batch that it is a callback of
    limit_name TEXT,                  -- limit of which the run itself holds a slot from its beginning to its end
    limit_key TEXT,
    on_parent_end TEXT,               -- cancel; abandon: others want it, too; NULL: it ends with the wait for it
    abandoned TEXT,                   -- JSON object: names of steps that were told to end and did not, by position
    compensated INTEGER NOT NULL DEFAULT 0, -- 1: a saga of it failed, and what it had done was undone
    progress TEXT,                    -- JSON: [done, total, note, position, at], or NULL
    said INTEGER NOT NULL DEFAULT 0,  -- how often it has said something: progress, attributes, items of streams
    forked_from TEXT,                 -- id of the run that it is a fork of
    unread TEXT,                      -- JSON object: signals that nobody had asked for when it ended, by name
    key_ttl REAL,                     -- seconds from started_at for which the key is its own; NULL is for ever
    created_at REAL NOT NULL,
    started_at REAL,
    ended_at REAL,
    checksum INTEGER                  -- seal of its attributes, see `seals`
) STRICT;
CREATE UNIQUE INDEX durable_runs_key ON durable_runs (key_live) WHERE key_live IS NOT NULL;
CREATE INDEX durable_runs_ready ON durable_runs (queue, priority DESC, place, ready_at, run) WHERE ready_at IS NOT NULL;
CREATE INDEX durable_runs_parent ON durable_runs (parent) WHERE parent IS NOT NULL;
CREATE INDEX durable_runs_tied ON durable_runs (parent) WHERE on_parent_end = 'cancel';
CREATE INDEX durable_runs_follows ON durable_runs (follows) WHERE follows IS NOT NULL;
CREATE INDEX durable_runs_batch ON durable_runs (batch, status) WHERE batch IS NOT NULL;
CREATE INDEX durable_runs_callback ON durable_runs (callback, status) WHERE callback IS NOT NULL;
-- What an operator looks for. One index each, since SQLite uses a partial index only for the very term it has.
CREATE INDEX durable_runs_failed ON durable_runs (run) WHERE status = 'failed';
CREATE INDEX durable_runs_blocked ON durable_runs (run) WHERE status = 'blocked';
CREATE INDEX durable_runs_paused ON durable_runs (run) WHERE status = 'paused';
CREATE INDEX durable_runs_cancelled ON durable_runs (run) WHERE status = 'cancelled';
CREATE INDEX durable_runs_open ON durable_runs (run) WHERE ended_at IS NULL;
-- Behind that of all open runs: of two that fit, SQLite takes the last.
CREATE INDEX durable_runs_published ON durable_runs (run, checksum)
    WHERE attributes IS NOT NULL AND ended_at IS NULL;
CREATE INDEX durable_runs_workflow ON durable_runs (workflow);
CREATE INDEX durable_runs_created ON durable_runs (created_at);

CREATE TABLE durable_ended (          -- how many runs have ended so: see `run_counts`
    workflow TEXT NOT NULL,
    status TEXT NOT NULL,
    runs INTEGER NOT NULL,
    PRIMARY KEY (workflow, status)
) STRICT, WITHOUT ROWID;

CREATE TABLE durable_labels (         -- which runs have a label: see `run_labels`
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    run INTEGER NOT NULL,
    PRIMARY KEY (name, value, run)
) STRICT, WITHOUT ROWID;

CREATE TABLE durable_keys (           -- keys of runs that were pruned, so that they are not given again
    key TEXT PRIMARY KEY,
    run_id TEXT NOT NULL,
    workflow TEXT NOT NULL,
    arguments TEXT,
    status TEXT NOT NULL,             -- how the run had ended
    until REAL,                       -- when the key may be taken; NULL is never
    checksum INTEGER                  -- seal, see `seals`
) STRICT, WITHOUT ROWID;
CREATE INDEX durable_keys_damaged ON durable_keys (checksum) WHERE checksum < 0;

CREATE TABLE durable_renewed (        -- runs that got other arguments while they waited to begin, see `keys`
    run INTEGER PRIMARY KEY,
    checksum INTEGER NOT NULL         -- of the event that says so; the row goes with the first turn that follows it
) STRICT;

CREATE TABLE durable_events (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    seq INTEGER NOT NULL,             -- 1, 2, ... within the run
    kind INTEGER NOT NULL,            -- see the view `history` for names
    position TEXT,
    at REAL NOT NULL,
    body TEXT,                        -- JSON list of the event's fixed fields
    value ANY,                        -- payload: JSON text (or what the codec hooks made of it)
    payload INTEGER,                  -- row of durable_payloads, where the payload is large
    checksum INTEGER NOT NULL         -- CRC-32 of this event and of the checksum before it, see `checksums`
) STRICT;
CREATE UNIQUE INDEX durable_events_run ON durable_events (run, seq);
CREATE INDEX durable_events_payload ON durable_events (payload) WHERE payload IS NOT NULL;

CREATE TABLE durable_payloads (       -- large payloads, each once
    payload INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,      -- BLAKE2b-256 of value
    value ANY NOT NULL
) STRICT;

CREATE TABLE durable_waits (          -- what runs wait for; a row goes when its wait ends
    wait INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    grp TEXT NOT NULL,                -- the run is woken when the last row of a group is gone
    position TEXT NOT NULL,
    kind TEXT NOT NULL,               -- timer retry signal child callback heartbeat deadline cleanup restart start ...
    wake_on TEXT NOT NULL,            -- any all failure
    name TEXT,                        -- of the signal, or callback
    target INTEGER,                   -- run waited for
    fire_at REAL,
    since REAL NOT NULL,
    checksum INTEGER                  -- seal, see `seals`
) STRICT;
CREATE UNIQUE INDEX durable_waits_run ON durable_waits (run, grp, position, kind);
CREATE INDEX durable_waits_fire ON durable_waits (fire_at) WHERE fire_at IS NOT NULL;
CREATE INDEX durable_waits_target ON durable_waits (target) WHERE target IS NOT NULL;

CREATE TABLE durable_inbox (          -- arrivals recorded but not yet part of a turn
    item INTEGER PRIMARY KEY AUTOINCREMENT,
    run INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    position TEXT,
    at REAL NOT NULL,
    body TEXT,
    value ANY,
    payload INTEGER,
    name TEXT,                        -- of the signal; of the feed that owes the next child for this one
    wakes INTEGER NOT NULL,           -- 1 if the run must not sleep on it: its group is complete, ...
    checksum INTEGER                  -- seal, see `seals`
) STRICT;
CREATE INDEX durable_inbox_run ON durable_inbox (run, item);
CREATE INDEX durable_inbox_wakes ON durable_inbox (run) WHERE wakes = 1;
CREATE INDEX durable_inbox_payload ON durable_inbox (payload) WHERE payload IS NOT NULL;

CREATE TABLE durable_dedup (          -- signals accepted once
    run INTEGER NOT NULL,
    dedup TEXT NOT NULL,
    checksum INTEGER,                 -- seal, see `seals`
    PRIMARY KEY (run, dedup)
) STRICT, WITHOUT ROWID;

CREATE TABLE durable_asked (          -- requests into runs, and their answers
    request TEXT PRIMARY KEY,         -- its id, as in the event that has its question
    run INTEGER NOT NULL,             -- which is to answer it, or did; once that has ended, nobody does
    name TEXT NOT NULL,
    dedup TEXT,                       -- id of the asker's: under it one thing is asked
    digest TEXT NOT NULL,             -- of the question, to tell the askers of one dedup apart
    answer ANY,                       -- payload; of the reason, if it was refused
    refused INTEGER NOT NULL DEFAULT 0,
    asked_at REAL NOT NULL,
    answered_at REAL,                 -- NULL: it was not
    checksum INTEGER                  -- seal, see `seals`
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX durable_asked_run ON durable_asked (run, dedup);

CREATE TABLE durable_notes (          -- cursors and memos of steps; cursors go when the step succeeds
    run INTEGER NOT NULL,
    position TEXT NOT NULL,
    name TEXT NOT NULL,               -- "cursor", or "memo:NAME:n"; "kept:memo:NAME:n" once its step has succeeded
    value ANY,
    at REAL NOT NULL,
    checksum INTEGER,                 -- seal, see `seals`
    PRIMARY KEY (run, position, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX durable_notes_open ON durable_notes (run, position, name, checksum) WHERE name NOT GLOB 'kept:*';

CREATE TABLE durable_stream_items (   -- what runs emit; the entry is where a reader continues
    entry INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    stream TEXT NOT NULL,
    position TEXT NOT NULL,           -- of the step that emitted it
    attempt INTEGER NOT NULL,         -- of that; 0 if the workflow itself did
    value ANY,
    at REAL NOT NULL,
    checksum INTEGER                  -- seal, see `seals`
) STRICT;
CREATE INDEX durable_stream_items_run ON durable_stream_items (run, stream);

CREATE TABLE durable_feeds (          -- windows of `for_each`es over jobs and workflows, see `feeds`
    run INTEGER NOT NULL,
    position TEXT NOT NULL,           -- of the for_each
    size INTEGER NOT NULL,            -- children under way at once
    grp TEXT NOT NULL,                -- of the rows that wait for its children
    wake_on TEXT NOT NULL,
    template TEXT NOT NULL,           -- JSON: the run of an item, but for its arguments
    tolerate INTEGER,                 -- failures that do not stop it yet, -1 once one has; NULL: the first does
    checksum INTEGER,                 -- seal, see `seals`
    PRIMARY KEY (run, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE durable_feed_items (     -- items still to come; the row goes when its child is created
    run INTEGER NOT NULL,
    position TEXT NOT NULL,
    item INTEGER NOT NULL,            -- its index in the list
    child INTEGER NOT NULL,           -- number of the run that it will be
    child_id TEXT NOT NULL,
    value ANY,                        -- payload: its arguments
    checksum INTEGER,                 -- seal, see `seals`
    PRIMARY KEY (run, position, item)
) STRICT, WITHOUT ROWID;

CREATE TABLE durable_queues (
    name TEXT PRIMARY KEY,
    paused_at REAL,
    fair_by TEXT,                     -- label whose values take turns, as the code that opened the file has it
    changed TEXT,                     -- numbers that hold in place of the code's: JSON [concurrency, count, per]
    checksum INTEGER                  -- seal, see `seals`
) STRICT;

CREATE TABLE durable_schedules (
    name TEXT PRIMARY KEY,
    spec TEXT NOT NULL,               -- when it ticks, as text; another one begins anew
    timezone TEXT NOT NULL,
    anchor REAL NOT NULL,             -- what `every` counts from
    upto REAL NOT NULL,               -- ticks up to here are dealt with
    next_at REAL,                     -- the next tick; NULL while paused, or not given to an engine
    last_at REAL,                     -- the latest tick that was dealt with
    last_run TEXT,                    -- id of the run started last
    open_runs TEXT NOT NULL DEFAULT '[]', -- JSON list: ids of its runs that had not ended when it was last looked at
    paused_at REAL,
    skipped INTEGER NOT NULL DEFAULT 0,
    last_skipped_at REAL,
    last_error TEXT,                  -- why the latest tick started nothing, or what holds the schedule up
    triggers TEXT NOT NULL DEFAULT '[]', -- JSON list of [run id, instant]: asked for by hand, not started yet
    failed INTEGER NOT NULL DEFAULT 0, -- ticks whose run could not be started
    overlap TEXT,                     -- of a schedule that was made at run time: skip queue cancel allow,
    missed TEXT,                      -- none one all,
    starts TEXT,                      -- and JSON list of the run that it starts
    checksum INTEGER                  -- seal, see `seals`
) STRICT;

CREATE TABLE durable_batches (
    batch INTEGER PRIMARY KEY AUTOINCREMENT, -- number, in order of creation; never given twice
    batch_id TEXT NOT NULL UNIQUE,
    parent INTEGER,                   -- batch that it is nested in
    description TEXT NOT NULL,
    labels TEXT,                      -- JSON object, or NULL
    contents TEXT,                    -- digest of what it was created with, to tell one id's callers apart
    created_at REAL NOT NULL,
    cancelled_at REAL,                -- when it was asked to end
    reason TEXT,                      -- why it was
    failed_at REAL,                   -- when the first member failed for good: on_failure started
    completed_at REAL,                -- when all had ended: on_complete, and perhaps on_success, started
    finished_at REAL,                 -- when its callbacks had ended, too
    outcome TEXT,                     -- succeeded | failed | cancelled, once it is complete
    on_success TEXT,                  -- JSON lists of the runs that it starts
    on_failure TEXT,
    on_complete TEXT,
    checksum INTEGER                  -- seal, see `seals`
) STRICT;
CREATE INDEX durable_batches_parent ON durable_batches (parent) WHERE parent IS NOT NULL;
CREATE INDEX durable_batches_unfinished ON durable_batches (parent) WHERE finished_at IS NULL AND parent IS NOT NULL;

CREATE TABLE durable_limits (         -- numbers of named limits, as the code that opened the file has them
    name TEXT PRIMARY KEY,
    concurrency INTEGER,
    count INTEGER,                    -- grants in any window ...
    per REAL,                         -- ... of so many seconds
    on_conflict TEXT NOT NULL,        -- wait reject replace: what a run does that finds no slot
    own TEXT,                         -- numbers of the code, where others hold: JSON [concurrency, count, per]
    checksum INTEGER                  -- seal, see `seals`
) STRICT;

CREATE TABLE durable_slots (          -- who is inside a limit, and who waits; a row goes when the slot is released
    slot INTEGER PRIMARY KEY AUTOINCREMENT, -- order of arrival
    name TEXT NOT NULL,
    key TEXT NOT NULL,
    run INTEGER NOT NULL,
    position TEXT NOT NULL,           -- of the step; '' where the slot is the run's own
    since REAL NOT NULL,
    granted_at REAL,                  -- NULL while it waits
    due_at REAL,                      -- when the rate lets it in, if that is what it waits for
    leaving INTEGER NOT NULL DEFAULT 0, -- 1 once a later run replaced it
    outlived INTEGER NOT NULL DEFAULT 0, -- 1 while it waits for a function in a thread that outlives its attempt
    aside INTEGER NOT NULL DEFAULT 0, -- 1 where it waited when its queue was paused: passed over until that is resumed
    checksum INTEGER                  -- seal, see `seals`
) STRICT;
CREATE UNIQUE INDEX durable_slots_run ON durable_slots (run, position);
CREATE INDEX durable_slots_waiting ON durable_slots (name, key, slot) WHERE granted_at IS NULL AND aside = 0;
CREATE INDEX durable_slots_held ON durable_slots (name, key) WHERE granted_at IS NOT NULL;
CREATE INDEX durable_slots_due ON durable_slots (due_at) WHERE due_at IS NOT NULL;

CREATE TABLE durable_grants (         -- grants of limits with a rate; pruned as they age
    name TEXT NOT NULL,
    key TEXT NOT NULL,
    at REAL NOT NULL
) STRICT;
CREATE INDEX durable_grants_key ON durable_grants (name, key, at);
CREATE INDEX durable_grants_at ON durable_grants (name, at);

CREATE TABLE durable_requests (       -- what clients asked for lately, so that what is asked for again is recorded once
    id TEXT PRIMARY KEY,
    answer TEXT NOT NULL,             -- JSON: what it resulted in, or the error that refused it
    at REAL NOT NULL,
    refused INTEGER NOT NULL DEFAULT 0, -- 1 if it was: then [name of the class, fields]
    checksum INTEGER                  -- seal, see `seals`
) STRICT, WITHOUT ROWID;
CREATE INDEX durable_requests_at ON durable_requests (at);

CREATE TABLE durable_hook_errors (    -- hooks that went wrong, and starts that were refused, when a run ended
    entry INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    hook TEXT NOT NULL,               -- its name
    error TEXT NOT NULL,
    at REAL NOT NULL,
    starts TEXT,                      -- JSON list of the run that was refused
    asked_at REAL,                    -- when it was asked for again; NULL once an engine is about to call it
    checksum INTEGER                  -- seal, see `seals`
) STRICT;
CREATE INDEX durable_hook_errors_run ON durable_hook_errors (run);

CREATE TABLE durable_kinds (          -- names of events, for the view `history`
    kind INTEGER PRIMARY KEY,
    name TEXT NOT NULL
) STRICT;
"""

_VIEW_RUNS = """
CREATE VIEW runs AS
SELECT run_id, workflow, version, sort, status, queue, priority, key, labels, attributes, reason,
       (SELECT p.run_id FROM durable_runs AS p WHERE p.run = r.parent) AS parent,
       datetime(created_at, 'unixepoch') AS created, datetime(started_at, 'unixepoch') AS started,
       datetime(ended_at, 'unixepoch') AS ended
FROM durable_runs AS r
"""
# The name of a command is the first text of its body, what the code calls a group or timer the last one. Cut out, since
# JSON functions are refused in the views of a schema that is not trusted, and ours is not (`connections`).
_VIEW_HISTORY = r"""
CREATE VIEW history AS
SELECT r.run_id, e.seq, k.name AS event, e.position, strftime('%Y-%m-%d %H:%M:%f', e.at, 'unixepoch') AS at, e.body,
       coalesce(e.value, p.value) AS value,
       CASE WHEN e.position IS NOT NULL THEN (
           SELECT replace(replace(CASE WHEN c.kind IN (20, 21) AND instr(c.body, '","') > 0
               THEN substr(c.body, instr(c.body, '","') + 3, length(c.body) - instr(c.body, '","') - 4)
               ELSE substr(c.body, 3, instr(c.body, '",') - 3) END, '\"', '"'), '\\', '\')
           FROM durable_events AS c WHERE c.run = e.run AND c.seq <= e.seq AND c.position = e.position
           AND c.kind IN (10, 16, 17, 20, 21, 23, 25, 26, 31, 32, 52, 53, 57) ORDER BY c.seq DESC LIMIT 1
       ) END AS name
FROM durable_events AS e
JOIN durable_runs AS r ON r.run = e.run
JOIN durable_kinds AS k ON k.kind = e.kind
LEFT JOIN durable_payloads AS p ON p.payload = e.payload
"""
_VIEW_WAITS = """
CREATE VIEW waits AS
SELECT r.run_id, w.position, w.kind, w.name,
       (SELECT t.run_id FROM durable_runs AS t WHERE t.run = w.target) AS waits_for_run,
       datetime(w.fire_at, 'unixepoch') AS until, datetime(w.since, 'unixepoch') AS since
FROM durable_waits AS w
JOIN durable_runs AS r ON r.run = w.run
"""


def prepare(connection: sqlite3.Connection, now: float) -> None:
    """Create or migrate the tables, in one transaction. The file has passed `marks.inspect`."""
    prepare_tables(connection, now)
    keep_seals(connection)
    count_missing(connection)


def prepare_tables(connection: sqlite3.Connection, now: float) -> None:
    """As `prepare`, of a connection through which no more will be written."""
    version = schema_of(connection)
    if version == SCHEMA_VERSION and _is_numbered(connection) and not is_backup(connection):
        return
    try:
        if version is None:
            _create(connection, now)
        else:
            _migrate(connection, version)
        connection.execute("INSERT OR REPLACE INTO durable_meta VALUES (?, ?)", (SCHEMA_ROW, SCHEMA_VERSION))
        continue_backup(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _is_numbered(connection: sqlite3.Connection) -> bool:
    """Whether the schema's number stands where today's releases look first."""
    return connection.execute("SELECT 1 FROM durable_meta WHERE name = ?", (SCHEMA_ROW,)).fetchone() is not None


def _migrate(connection: sqlite3.Connection, version: int) -> None:
    numbered = _is_numbered(connection)
    if version == SCHEMA_VERSION:
        connection.execute("BEGIN IMMEDIATE")
    else:
        from durable._shell.storage.migrations import migrate  # noqa: PLC0415 - of older files

        migrate(connection, version)
        seal_older(connection)
        count_anew(connection)
        _renew_history(connection)
    if not numbered:  # the releases that look there would take it for their own
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _renew_history(connection: sqlite3.Connection) -> None:
    """Let the view `history` be today's, if it is ours: the application may have something else of that name."""
    found = connection.execute("SELECT sql FROM sqlite_master WHERE type = 'view' AND name = 'history'").fetchone()
    if found is not None and "durable_events" in found[0]:
        connection.execute("DROP VIEW history")
        connection.execute(_VIEW_HISTORY)


def _create(connection: sqlite3.Connection, now: float) -> None:
    connection.executescript("BEGIN IMMEDIATE;" + _TABLES)
    connection.executemany("INSERT INTO durable_kinds VALUES (?, ?)", KIND_NAMES.items())
    connection.execute("INSERT INTO durable_meta VALUES ('created_at', ?)", (now,))
    connection.execute("INSERT INTO durable_meta VALUES ('commits', 0)")
    count_anew(connection)
    # Where the application has a table of such a name, it goes without our view.
    taken = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if "runs" not in taken:
        connection.execute(_VIEW_RUNS)
    if "history" not in taken:
        connection.execute(_VIEW_HISTORY)
    if "waits" not in taken:
        connection.execute(_VIEW_WAITS)
    if connection.execute("PRAGMA application_id").fetchone() == (0,):
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
