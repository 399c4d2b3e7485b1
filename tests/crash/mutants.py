"""
`make mutants`: break the engine on purpose, one promise at a time, and see that a named test notices.

Each mutant is one change of the source, made in a copy of the tree. Its test must pass in the copy as it is and
fail with the change; a mutant that survives is a promise that no test holds. `tests/crash/test_mutants.py` sees to
it that every change still fits the source. Arguments: parts of the names of the mutants to try.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from attrs import frozen

ROOT = Path(__file__).parents[2]
#: Seconds that a test may take: a mutant that hangs its test is noticed as well.
PATIENCE = 120
WORKERS = 2


@frozen
class Mutant:
    """One change, and the test that must notice."""

    breaks: str
    file: str
    old: str
    new: str
    test: str


def _m(breaks: str, file: str, old: str, new: str, test: str) -> Mutant:
    return Mutant(breaks, f"durable/{file}.py", old, new, f"tests/{test}")


MUTANTS = (
    # --- what is on disk -------------------------------------------------------------------------------
    _m(
        "no sync at a commit",
        "_shell/storage/connections",
        '("PRAGMA synchronous = FULL", "PRAGMA synchronous", 2)',
        '("PRAGMA synchronous = NORMAL", "PRAGMA synchronous", 1)',
        "crash/test_power_loss.py::test_full_durability_loses_nothing_in_a_power_cut",
    ),
    _m(
        "a commit that rolls back",
        "_shell/storage/connections",
        'conn.execute("COMMIT")',
        'conn.execute("ROLLBACK")',
        "crash/test_prefixes.py::test_every_prefix_of_the_ride_leads_to_the_same_receipt",
    ),
    _m(
        "rows that are written seldom have no seals",
        "_shell/storage/seals",
        '{name}_seal AFTER INSERT ON main.{name} "',
        '{name}_seal AFTER INSERT ON main.{name} WHEN 0 "',
        "shell/test_seals.py::test_what_is_written_seldom_is_sealed_as_it_is_written",
    ),
    _m(
        "a damaged row that is written to looks sound",
        "_shell/storage/seals",
        "WHEN old.checksum IS NULL OR old.checksum = {table.sum_of('old')} ",
        "",
        "shell/test_seals.py::test_what_is_written_seldom_is_sealed_as_it_is_written",
    ),
    _m(
        "a damaged queue goes on",
        "_shell/writes/damage",
        'if what == "queue":\n        conn',
        "if not what:\n        conn",
        "shell/test_seals.py::test_a_damaged_queue_is_paused_and_named",
    ),
    _m(
        "a key whose text was damaged is given again",
        "_shell/claims/keys",
        'lost = was_there(conn, "durable_keys", "key", key)',
        "lost = False",
        "shell/test_seals.py::test_a_key_whose_own_text_was_damaged_is_still_taken",
    ),
    _m(
        "an event that stands with another run stays there",
        "_shell/turns/driver",
        "if not await self._writer.put_back():",
        "if True:",
        "shell/test_seals.py::test_an_event_that_stands_with_another_run_is_put_back",
    ),
    _m(
        "items of streams that nobody compares",
        "_shell/reads/stream_rows",
        "if not fits_seal(",
        "if False and not fits_seal(",
        "shell/test_seals.py::test_a_damaged_item_of_a_stream_is_not_read",
    ),
    _m(
        "a step that begins twice",
        "_shell/turns/attempt_runner",
        "if action.position in self._running:",
        "if False:",
        "crash/test_fuzz.py::test_a_step_that_is_to_begin_while_it_is_running_blocks_its_run_alone",
    ),
    _m(
        "a circle keeps all others from being pruned",
        "_shell/requests/prune_requests",
        "except JournalDamagedError:  # it leads",
        "except ZeroDivisionError:  # it leads",
        "shell/test_prune_backup.py::test_a_run_that_continues_in_a_circle_keeps_no_other_from_leaving",
    ),
    _m(
        "plain text in an encrypted journal",
        "_shell/client/client_backend",
        "if self._encrypted and any(",
        "if False and any(",
        "shell/test_concealed_texts.py::test_who_has_no_codec_is_refused_what_would_stand_in_plain",
    ),
    _m(
        "a scrub that gives up at the first reader",
        "_shell/storage/database",
        "for pause in _EMPTYING_PAUSES:",
        "for pause in _EMPTYING_PAUSES[:1]:",
        "shell/test_prune_backup.py::test_a_secure_prune_waits_for_a_reader_that_ends",
    ),
    _m(
        "redaction that forgets a text",
        "_core/recorded/redaction",
        "isinstance(event, OutcomeResolved) and event.by:",
        "isinstance(event, OutcomeResolved) and not event:",
        "core/test_exchange.py::test_a_hook_is_asked_about_every_text_of_every_event",
    ),
    _m(
        "seals that nobody compares",
        "_shell/storage/seals",
        "if row[-1] is not None and row[-1] != _sum(row[:-1])",
        "if row[-1] == -1",
        "shell/test_seals.py::test_another_value_in_any_column_is_seen",
    ),
    _m(
        "a seal that a write leaves whole",
        "_shell/storage/seals",
        "WHEN old.checksum >= 0 BEGIN",
        "WHEN old.checksum < -1 BEGIN",
        "shell/test_seals.py::test_an_engine_seals_what_rests_and_breaks_seals_as_it_writes",
    ),
    _m(
        "a timer that fires whatever its row says",
        "_shell/writes/wakeups",
        'if seal is not None and not is_sound(conn, "durable_waits", wait):\n            raise',
        'if False and not is_sound(conn, "durable_waits", wait):\n            raise',
        "shell/test_seals.py::test_what_is_damaged_while_the_engine_has_the_file_is_seen_when_it_is_read",
    ),
    _m(
        "a failed sync taken for a failed commit",
        "_shell/storage/connections",
        " and primary_code(error) != sqlite3.SQLITE_IOERR",
        "",
        "shell/test_database.py::test_a_failed_sync_decides_nothing_although_the_transaction_is_open",
    ),
    _m(
        "acts before it records",
        "_shell/turns/driver",
        "                freed = await self._writer.record(decision, execution, self._inbox.upto, now)",
        "                self._perform(decision, execution)\n"
        "                freed = await self._writer.record(decision, execution, self._inbox.upto, now)",
        "crash/test_kill.py::test_it_does_not_matter_at_which_point_of_a_commit_the_process_dies",
    ),
    _m(
        "a turn that was recorded in part is taken for a whole one",
        "_core/journal/history",
        "unfinished_at=last.at if isinstance(last, TurnUnfinished) else None",
        "unfinished_at=None",
        "core/test_slices.py",
    ),
    _m(
        "a turn is cut within what arrived",
        "_core/run/decision",
        "        if number >= behind:\n",
        "        if number:\n",
        "core/test_slices.py",
    ),
    _m(
        "goes on with what the file did not take",
        "_shell/turns/driver",
        "go_back: Arriving = self._reload\n",
        "go_back: Arriving = self._next\n",
        "crash/test_disk.py",
    ),
    _m(
        "a group that is spoiled fails whole",
        "_shell/commits/commits",
        "if len(group) == 1 and (group.spoiled or not group.words):",
        "if group:",
        "shell/test_blast_radius.py",
    ),
    _m(
        "a statement after the transaction was ended from inside commits by itself",
        "_shell/attempts/transaction",
        "if not self._conn.in_transaction:",
        "if False:",
        "shell/test_blast_radius.py",
    ),
    _m(
        "a read that failed keeps its snapshot",
        "_shell/storage/connections",
        "    traceback.clear_frames(error.__traceback__)\n",
        "",
        "shell/test_database.py",
    ),
    _m(
        "an id of the engine's can be chosen",
        "_core/run_ids",
        'RESERVED_SIGNS: Final = "/~:"',
        'RESERVED_SIGNS: Final = "~:"',
        "shell/test_run_options.py",
    ),
    _m(
        "misses the member that ended while the turn of another was written",
        "_shell/writes/turn_writes",
        "        _look_behind(conn, run, group, effects)",
        "        pass",
        "contract/test_journal.py",
    ),
    _m(
        "a run that has children by old ids expects others by new ones",
        "_core/run/leaves",
        "            ex.old_ids = run_ids.is_old_child(self.run_id, ex.run_id)",
        "            pass",
        "histories/test_golden.py",
    ),
    _m(
        "acknowledges what a full disk refused",
        "_shell/commits/commits",
        "            except JournalError as error:\n                self._failed(group, error)\n",
        "            except JournalError:\n                await self._succeeded(group)\n                return\n",
        "crash/test_disk.py::test_a_full_file_refuses_starts_and_makes_running_runs_wait_until_there_is_room",
    ),
    _m(
        "a damaged event is believed",
        "_shell/rows/rows",
        "recorded != older_checksum(chain, kind, position, at, body, value)\n",
        "False\n",
        "crash/test_corruption.py::test_a_changed_event_blocks_its_run_and_no_other",
    ),
    _m(
        "a journal of a newer release is opened",
        "_shell/storage/copies/marks",
        "if version is not None and version > SCHEMA_VERSION:",
        "if version is not None and version > SCHEMA_VERSION + 1000:",
        "shell/test_open_close.py::test_a_file_that_is_not_ours_is_refused_untouched",
    ),
    _m(
        "a WAL that is not of this file is applied to a backup",
        "_shell/storage/copies/backups",
        "if mark is not None and _read(path, _CONTINUES) != mark:",
        "if False:",
        "shell/test_backups.py::test_a_backup_beside_the_wal_of_a_killed_process_is_refused_untouched",
    ),
    _m(
        "a backup stays marked when it is opened",
        "_shell/storage/schema",
        "        continue_backup(connection)\n",
        "",
        "shell/test_backups.py::test_a_backup_that_was_opened_has_a_wal_of_its_own",
    ),
    _m(
        "restores under a running engine",
        "_shell/ownership/restoring",
        'with Ownership.acquire(path, "client") as ownership, copied',
        'with Ownership.acquire(f"{path}.x", "client") as ownership, copied',
        "shell/test_backups.py::test_restoring_is_refused_while_the_journal_has_an_owner",
    ),
    _m(
        "restores beside the old WAL",
        "_shell/ownership/restoring",
        '_CONTENT: Final = ("-wal", "-journal")',
        '_CONTENT: Final = ("-journal",)',
        "shell/test_backups.py::test_restoring_sets_aside_what_was_there_with_its_wal",
    ),
    _m(
        "restores what does not verify",
        "_shell/storage/copies/backups",
        'if (found := pages.fetchone()[0]) != "ok":',
        'if (found := pages.fetchone()[0]) == "":',
        "shell/test_backups.py::test_a_backup_that_is_damaged_or_none_replaces_nothing",
    ),
    _m(
        "a WAL whose file is gone is thrown away",
        "_shell/storage/copies/backups",
        "if not _bytes(path):",
        "if False:",
        "shell/test_backups.py::test_a_wal_without_its_file_is_not_thrown_away",
    ),
    _m(
        "a backup needs hard links",
        "_shell/storage/copies/backups",
        "if error.errno not in _NO_LINKS:",
        "if error:",
        "shell/test_backups.py::test_a_backup_is_made_where_there_are_no_hard_links",
    ),
    _m(
        "a look during a reopening takes the new WAL for a stranger's",
        "_shell/storage/database",
        " or self._side_files is not side_files:",
        ":",
        "shell/test_database.py::test_a_look_during_a_reopening_sees_no_loss",
    ),
    _m(
        "a client of a file that is being made hears what SQLite says",
        "_shell/client/client_backend",
        "if marks.schema_of(connection) is None:",
        "if False:",
        "shell/test_client.py::test_a_client_of_a_file_whose_engine_is_about_to_make_the_journal",
    ),
    _m(
        "event streams hold up a server that is told to end",
        "_shell/client/client_backend",
        "        self._watching.end_by(now)\n",
        "",
        "shell/test_service.py::test_a_server_that_is_told_to_end_is_not_held_up_by_streams",
    ),
    _m(
        "the host does not know the engine in a container by its number there",
        "_shell/requests/peers",
        'if line.startswith("NSpid:")',
        "if not line",
        "test_production.py::test_as_pid_1_it_ends_by_sigterm",
    ),
    _m(
        "health says that all is well while something is waited out",
        "_shell/engine/backend",
        'Health("degraded" if reasons else "healthy", reasons)',
        'Health("healthy", ())',
        "shell/test_supervision.py::test_health_says_what_a_probe_needs",
    ),
    _m(
        "a bug in a background task is tried for ever",
        "_core/supervision",
        "(passing is None and tries < MOST_TRIES)",
        "passing is None",
        "core/test_supervision.py::test_a_bug_gets_some_tries_and_then_ends_the_engine",
    ),
    _m(
        "a signal that serve() hears drains nothing",
        "_shell/engine/serving",
        "asyncio.create_task(running.drain())",
        "asyncio.create_task(asyncio.sleep(0))",
        "shell/test_serving.py::test_a_signal_drains_the_engine",
    ),
    _m(
        "results hold up a server that is told to end",
        "_shell/client/client_backend",
        "        self._waiting.end_by(now + seconds)\n",
        "",
        "shell/test_service.py::test_a_server_that_is_told_to_end_is_not_held_up_by_results",
    ),
    _m(
        "who finds the file taken is not told of Service",
        "errors",
        "durable.Service is asked in all",
        "it is asked in all",
        "shell/test_service.py::test_an_engine_that_finds_the_file_taken_names_what_several_processes_use",
    ),
    _m(
        "an engine stands by and says nothing",
        "_shell/engine/backend",
        '        self._log("engine.standing_by", holder=holder)\n',
        "",
        "shell/test_open_close.py::test_a_standby_takes_over",
    ),
    _m(
        "a forked child uses the engine of its parent",
        "_shell/engine/running",
        "return os.getpid() != self._pid",
        "return False",
        "shell/test_open_close.py::test_a_forked_child_may_not_use_the_engine",
    ),
    _m(
        "a forked child keeps the lock of a killed owner",
        "_shell/ownership/ownership",
        "os.register_at_fork(after_in_child=Ownership.forget_in_child)",
        "pass",
        "shell/test_ownership.py::test_a_forked_child_of_a_killed_owner_does_not_keep_the_file",
    ),
    _m(
        "the application's own id is replaced by ours",
        "_shell/storage/schema",
        'if connection.execute("PRAGMA application_id").fetchone() == (0,):',
        "if True:",
        "shell/test_open_close.py::test_the_header_of_a_file_is_the_applications",
    ),
    _m(
        "a network file system is opened without being insisted on",
        "_shell/storage/location",
        "if NETWORK_FILESYSTEMS.fullmatch(kind) and not allow_network_fs:",
        "if False:",
        "shell/test_location.py::test_a_network_file_system_is_refused_unless_it_is_insisted_on",
    ),
    _m(
        "a folder that is missing is found out by the lock",
        "_shell/storage/location",
        'raise JournalAccessError(path, f"the folder {folder} does not exist: make it first") from None',
        "return",
        "shell/test_location.py::test_what_cannot_be_a_journal_is_told_first",
    ),
    _m(
        "a backup into a missing folder says what the system says",
        "_shell/storage/copies/backups",
        "if not os.path.isdir(folder := os.path.dirname(target)):",
        "if not (folder := os.path.dirname(target)):",
        "shell/test_database.py::test_a_backup_refuses_what_would_spoil_it",
    ),
    _m(
        "what outlives its attempt is not counted",
        "_shell/attempts/steps",
        "return sum(function.cancelled.is_set() for function in all_of(self))",
        "return 0",
        "shell/test_threads.py::test_the_next_attempt_begins_when_the_function_has_really_returned",
    ),
    _m(
        "closing on another loop closes nothing",
        "_shell/engine/backend",
        "if not await to_its_end(on_its_loop(home, self.aclose)):",
        "if not home:",
        "shell/test_loops.py::test_closing_from_another_loop_closes",
    ),
    _m(
        "SQLite sorts in files that a read-only root has no folder for",
        "_shell/storage/connections",
        '("PRAGMA temp_store = MEMORY", "PRAGMA temp_store", 2)',
        '("PRAGMA temp_store = FILE", "PRAGMA temp_store", 1)',
        "shell/test_database.py::test_pragmas_hold_on_both_connections",
    ),
    _m(
        "a thread of a pool keeps the process alive",
        "_shell/threads",
        "super().__init__(name=name, daemon=True)",
        "super().__init__(name=name, daemon=False)",
        "shell/test_threads.py::test_a_thread_that_hangs_does_not_keep_the_process_alive",
    ),
    _m(
        "a copy of an open file is not told",
        "_shell/engine/running",
        '        log.warning("journal.notice", path=path, notice=WHOLE)\n',
        "        pass\n",
        "shell/test_torn_copies.py::test_a_copy_that_is_whole_is_told_once_and_opens",
    ),
    _m(
        "two engines on one file",
        "_shell/ownership/ownership",
        "fcntl.flock(ownership._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "pass",
        "shell/test_open_close.py::test_a_second_engine_is_refused_at_once",
    ),
    _m(
        "the file stays open after the engine closed",
        "_shell/engine/running",
        "    parts.push_async_callback(file.aclose)\n",
        "",
        "shell/test_open_close.py::test_closing_leaves_no_thread_task_or_descriptor",
    ),
    # --- steps and transactions ------------------------------------------------------------------------
    _m(
        "each attempt has another idempotency key",
        "_shell/attempts/steps",
        'f"{state.run_id}:{action.position}",',
        'f"{state.run_id}:{action.position}:{action.attempt}",',
        "shell/test_steps.py::test_attempts_share_one_idempotency_key",
    ),
    _m(
        "a failed transaction leaves its rows",
        "_shell/attempts/transaction",
        'conn.execute("ROLLBACK TO durable_transaction")',
        "pass",
        "shell/test_transactions.py::test_a_failed_transaction_leaves_nothing",
    ),
    _m(
        "what a failed transaction staged starts all the same",
        "_shell/attempts/transaction",
        'conn.execute("ROLLBACK TO durable_transaction")',
        'conn.execute("RELEASE durable_transaction"), conn.execute("SAVEPOINT durable_transaction"), effects.add(mine)',
        "shell/test_transactions.py::test_what_a_failed_transaction_staged_never_starts",
    ),
    _m(
        "a step that kills the process is tried for ever",
        "_core/run/step_states",
        "if event.crashed and state.crashes + 1 >= rules.crash_limit:",
        "if False and state.crashes + 1 >= rules.crash_limit:",
        "shell/test_retry_fork.py::test_a_step_that_kills_the_process_three_times_is_poison",
    ),
    _m(
        "a death while the engine drains counts as a crash",
        "_shell/turns/driver",
        "if last.drained or last.in_turn:",
        "if last.in_turn:",
        "shell/test_open_close.py::test_a_death_while_the_engine_drains_is_no_crash",
    ),
    _m(
        "what a closing engine cut off is repeated although it must not be",
        "_core/run/step_states",
        '    if rules.on_crash == "raise":\n',
        '    if rules.on_crash == "raise" and event.crashed:\n',
        "shell/test_unknown_outcomes.py::test_an_orderly_stop_does_not_run_it_twice",
    ),
    _m(
        "what was never called counts as an unknown outcome",
        "_core/run/step_states",
        '        StepNotBegun: Transition("due"),\n',
        '        StepNotBegun: Transition("stuck", (StepEffect.RELEASE,)),\n',
        "core/test_step_states.py::test_an_unknown_outcome_is_one_however_the_attempt_was_cut_off",
    ),
    _m(
        "a run that made up for its failure is retried",
        "_shell/requests/history_requests",
        "    ran = () if force or unborn else history.ran_since(events, reopened)\n",
        "    ran = ()\n",
        "shell/test_retry_fork.py::test_a_run_that_made_up_for_its_failure_is_not_retried",
    ),
    _m(
        "a retry forgets what other members did since the failure",
        "_core/journal/history",
        "aftermath.went_on(kept, cut, failures)",
        "[]",
        "shell/test_retry_fork.py::test_a_retry_repeats_nothing_that_other_members_did_since",
    ),
    _m(
        "a retry forgets how the groups of other members were arranged",
        "_core/journal/history",
        " or isinstance(event, GroupArranged)\n",
        "\n",
        "core/test_aftermath.py::test_a_group_that_a_member_opened_since_tolerates_what_it_did",
    ),
    _m(
        "the clean-up of a member that was told to end is taken for its own progress",
        "_core/journal/aftermath",
        "        elif inner in begun and failures.between(outer, arrived.get(inner, -1), index):\n",
        "        elif inner in begun and failures.between(outer, arrived.get(inner, -1), -1):\n",
        "core/test_aftermath.py::test_the_clean_up_of_a_member_that_was_told_to_end",
    ),
    _m(
        "an async transaction gives ids of runs that will not be",
        "_shell/attempts/transaction",
        "        if new.may_be_refused:  # at once",
        "        if new.limit:  # at once",
        "shell/test_transactions.py::test_a_staged_run_with_a_taken_key_is_joined_or_refused_at_the_call",
    ),
    _m(
        "a run that is refused has taken its key all the same",
        "_shell/writes/run_writes",
        '            case "take":\n                _check_due_room(conn, new)\n',
        '            case "take":\n                pass\n',
        "shell/test_keys.py::test_a_run_whose_limit_refuses_the_next_one_keeps_its_key",
    ),
    _m(
        "the time of a key begins with its start",
        "_shell/claims/keys",
        "SELECT run, run_id, arguments, workflow, status, coalesce(key_until, started_at + key_ttl),\n",
        "SELECT run, run_id, arguments, workflow, status, coalesce(key_until, created_at + key_ttl),\n",
        "shell/test_keys.py::test_the_time_of_a_key_begins_with_its_run",
    ),
    _m(
        "prune frees keys that are for ever",
        "_shell/requests/prune_requests",
        "    if keep_keys:\n",
        "    if not keep_keys:\n",
        "shell/test_keys.py::test_prune_keeps_keys",
    ),
    _m(
        "starts that coalesce keep the arguments of the first",
        "_shell/claims/keys",
        '"join" if holder.arguments == new.arguments else "renew"',
        '"join"',
        "shell/test_keys.py::test_starts_coalesce_into_one_run_that_waits",
    ),
    _m(
        "a run begins with arguments that were replaced",
        "_shell/writes/turn_writes",
        "    too_early = made_too_early(conn, turns)\n",
        "    too_early = made_too_early(conn, turns[:0])\n",
        "shell/test_keys.py::test_no_run_begins_with_arguments_that_were_replaced",
    ),
    _m(
        "starts that coalesce run beside each other",
        "_shell/writes/run_writes",
        "new = evolve(new, behind=(*new.behind, holder.run))",
        "new = evolve(new, behind=new.behind)",
        "shell/test_keys.py::test_starts_coalesce_into_one_run_that_waits",
    ),
    _m(
        "what a run continues as begins with the arguments of a start that coalesces",
        "_shell/claims/keys",
        "waits = bool(is_waiting) and not _continues_another(conn, run_id)",
        "waits = bool(is_waiting)",
        "shell/test_keys.py::test_what_a_run_continues_as_is_running_for_those_that_coalesce",
    ),
    _m(
        "rerun-failed repeats what has succeeded",
        "_shell/claims/keys",
        'return conflict == "rerun-failed" and status != "succeeded"',
        'return conflict == "rerun-failed"',
        "shell/test_keys.py::test_rerun_failed_repeats_what_has_not_succeeded",
    ),
    _m(
        "a run is deleted under one that is open",
        "_shell/requests/prune_requests",
        "                _check_deletable(conn, self.run_id, run, run_id, status, batch)\n",
        "",
        "shell/test_prune_backup.py::test_delete_removes_a_tree",
    ),
    _m(
        "runs of a paused queue are let in, and hold what they cannot use",
        "_shell/claims/slots",
        "    AND NOT {IN_PAUSED_QUEUE_SQL}\nORDER",
        "ORDER",
        "shell/test_limits.py::test_a_run_that_gets_in_line_while_its_queue_is_paused_is_passed_over",
    ),
    _m(
        "a run that is held before it begins keeps others out",
        "_shell/claims/slots",
        "        if not position and granted_at is not None and _is_unborn(conn, run):\n",
        "        if position and granted_at is not None and _is_unborn(conn, run):\n",
        "shell/test_limits.py::test_a_run_that_is_paused_before_it_begins_gives_back_its_own_slot",
    ),
    _m(
        "what was granted before a queue was paused stays granted",
        "_shell/tasks/scheduler",
        "                self._services.spawn(self._vacate, queue)\n",
        "                self._services.activity.end()\n",
        "shell/test_limits.py::test_a_paused_queue_gives_back_what_was_granted_and_cannot_be_used",
    ),
    _m(
        "a queue that gets its rate back forgets what began",
        "_shell/reads/queue_rows",
        "rate = own if numbers is None",
        "rate = None if numbers is None",
        "shell/test_changed_numbers.py::test_a_rate_of_any_window_counts_what_began_in_it",
    ),
    _m(
        "a pause that is carried out after the resumption",
        "_shell/claims/slots",
        "    if not conn.execute(_IS_PAUSED, (queue,)).fetchone()[0]:\n        return []\n",
        "    assert _IS_PAUSED\n",
        "shell/test_limits.py::test_a_queue_that_is_resumed_while_its_pause_is_carried_out_lets_its_runs_in",
    ),
    _m(
        "an engine that cannot open forgets who killed the last one",
        "_shell/engine/running",
        "            recovered = await _recover(database, settings, left, outlived)\n"
        "            if ownership is not None:\n                ownership.forget_last_words()\n",
        "            if ownership is not None:\n                ownership.forget_last_words()\n"
        "            recovered = await _recover(database, settings, left, outlived)\n",
        "shell/test_ownership.py::test_an_engine_that_cannot_open_leaves_what_the_dead_one_noted",
    ),
    _m(
        "a paused queue holds what it held when the process died",
        "_shell/engine/running",
        "slots.leave_paused_queue(conn, queue, now, effects, active=None)",
        "slots.leave_paused_queue(conn, queue, now, effects, active=set())",
        "shell/test_limits.py::test_a_paused_queue_holds_nothing_after_a_restart",
    ),
    _m(
        "a batch whose members are mended stays failed",
        "_shell/requests/history_requests",
        "        reopen_batches(conn, batch)\n",
        "        assert reopen_batches\n",
        "shell/test_batches.py::test_retrying_a_member_of_a_complete_batch_opens_the_batch_again",
    ),
    _m(
        "a batch that is retried starts its callbacks twice",
        "_shell/writes/batch_ends",
        '    conn.execute("UPDATE durable_batches SET on_complete = NULL WHERE batch = ?", (batch,))\n',
        "",
        "shell/test_batches.py::test_a_batch_is_retried_as_a_whole",
    ),
    _m(
        "a run that was cancelled before it began is lost",
        "_core/journal/history",
        "    if failure is None and never_began(kept):\n",
        "    if failure is None and never_began(kept[:1]):\n",
        "shell/test_retry_fork.py::test_a_run_that_was_cancelled_before_it_began_can_be_retried",
    ),
    _m(
        "the retry policy is not asked about an unknown outcome",
        "_core/run/step_states",
        "    if seconds is None:\n        return StepFailed(step.position, event.attempt, payload, event.at)\n",
        "    if True:\n        return StepFailed(step.position, event.attempt, payload, event.at)\n",
        "core/test_step_states.py::test_an_unknown_outcome_is_a_failed_attempt_for_the_retry_policy",
    ),
    _m(
        "a person may give an outcome to a step that is running",
        "_core/run/step_states",
        '    if step.state.phase != "stuck":\n        return None\n',
        "",
        "core/test_step_states.py::test_what_a_person_says_of_a_step_that_is_not_stuck_is_dropped",
    ),
    _m(
        "a run resumes although another outcome is unknown",
        "_core/run/execution",
        "        if self._resolved:\n",
        "        if False:\n",
        "core/test_step_states.py::test_a_run_with_another_stuck_step_stays_blocked",
    ),
    _m(
        "who awaits a blocked run waits for ever",
        "_shell/engine/backend",
        'if row.status == "blocked" and not wait:',
        "if False:",
        "shell/test_blocked.py::test_its_result_raises_why_it_is_blocked",
    ),
    _m(
        "who waits for a run is not told that it was blocked",
        "_shell/tasks/result_waiters",
        '            if stopped.status == "blocked":\n',
        "            if False:\n",
        "shell/test_blocked.py::test_who_waits_when_it_is_blocked_hears_of_it",
    ),
    _m(
        "everything that ran beside a killer is called poison",
        "_core/suspicion",
        "return was_alone or not is_suspect(crashes, crash_limit)",
        "return True",
        "shell/test_poison.py::test_the_killer_is_found_among_ten_neighbours",
    ),
    _m(
        "a step that ignores its timeout is waited for for ever",
        "_shell/attempts/steps",
        "if running.keeper is not None and running.action.op.definition.is_async:",
        "if False:",
        "shell/test_structured_cancelling.py::test_a_step_that_ignores_its_own_timeout_is_abandoned_and_told",
    ),
    _m(
        "the slot of a function that outlives its run is free",
        "_shell/claims/slots",
        '"UPDATE durable_slots SET outlived = 1 WHERE',
        '"UPDATE durable_slots SET outlived = 0 WHERE',
        "shell/test_threads.py::test_a_function_that_hangs_keeps_its_slot_of_a_limit_until_it_has_returned",
    ),
    _m(
        "suspects run all at once",
        "_core/suspicion",
        "return self._line[0] is suspect",
        "return True",
        "core/test_suspicion.py::test_suspects_have_their_turn_one_after_the_other",
    ),
    _m(
        "code that kills in its own turn is not found",
        "_shell/turns/driver",
        "            with self._watch.turn:\n                decision =",
        "            if True:\n                decision =",
        "shell/test_poison.py::test_code_that_kills_the_process_in_its_own_turn_is_found_among_ten_neighbours",
    ),
    _m(
        "a death in a turn is laid upon the steps beside it",
        "_shell/turns/driver",
        "if last.drained or last.in_turn:",
        "if last.drained:",
        "shell/test_poison.py::test_code_that_kills_the_process_in_its_own_turn_is_found_among_ten_neighbours",
    ),
    _m(
        "a run that gets further stays accused",
        "_core/suspicion",
        "if known is not None and known.mark == mark",
        "if known is not None",
        "core/test_suspicion.py::test_deaths_count_for_the_same_place_of_the_same_run",
    ),
    _m(
        "who owns a file for a moment takes what the dead one had noted",
        "_shell/ownership/ownership",
        "            if self._left:",
        "            if False:",
        "shell/test_ownership.py::test_what_an_owner_noted_before_it_died_is_read_by_the_next_that_executes_the_file",
    ),
    _m(
        "poison leaves its run blocked",
        "_core/run/step_states",
        'return Choice.POISON_BLOCKS if rules.on_poison == "block" else Choice.POISON',
        "return Choice.POISON_BLOCKS",
        "core/test_step_states.py::test_poison_fails_unless_it_is_to_block",
    ),
    _m(
        "a step never hears that its engine drains",
        "_shell/engine/running",
        "            lambda: self.draining,\n",
        "            lambda: False,\n",
        "shell/test_open_close.py::test_a_step_knows_that_its_engine_drains",
    ),
    _m(
        "one drain excuses every later death",
        "_shell/writes/deaths",
        "DELETE FROM durable_meta WHERE name IN ('draining_since', 'alone') RETURNING name, value",
        "SELECT name, value FROM durable_meta WHERE name IN ('draining_since', 'alone')",
        "shell/test_open_close.py::test_a_death_after_a_drain_of_an_earlier_engine_is_a_crash",
    ),
    _m(
        "an error comes back as another type",
        "_core/codec/exceptions/failures",
        "exc = build(cls, args, state, members) if found is None else validation_errors.rebuild(cls, found, _value)",
        "exc = None",
        "shell/test_engine_runs.py::test_a_failure_has_its_original_type_as_cause",
    ),
    _m(
        "what a closing cut off counts as a failed attempt",
        "_shell/attempts/steps",
        "        if not running.is_cancelled:\n            return None\n",
        "        if not running.is_cancelled:\n            return self.failed(action, TimeoutError(), run_id)\n",
        "shell/test_open_close.py::test_what_outlasts_the_grace_is_cut_off_and_runs_again",
    ),
    _m(
        "Ctrl-C in workflow code fails its run",
        "_core/codec/exceptions/origin",
        "    return kind is KeyboardInterrupt and origin is not None and not _raises(origin)\n",
        "    return False\n",
        "core/test_ops.py::test_what_a_signal_raises_in_workflow_code_is_for_the_program",
    ),
    _m(
        "an exception's own property runs when it is recorded",
        "_core/codec/exceptions/parts",
        "    cause: BaseException | None = _CAUSE.__get__(exc)\n",
        "    cause: BaseException | None = exc.__cause__\n",
        "core/test_hostile_exceptions.py::test_what_a_class_says_of_itself_is_not_asked",
    ),
    _m(
        "a record may name the module that Python imports for it",
        "_core/codec/exceptions/instances",
        '    ImportError: {"msg": _text, "path": _text},\n',
        '    ImportError: {"msg": _text, "path": _text, "name": _text},\n',
        "core/test_failures.py::test_no_import_error_names_a_module",
    ),
    _m(
        "the line where an error was raised is lost",
        "_core/codec/exceptions/failures",
        "        notes.append(frames)\n",
        "        pass\n",
        "core/test_failures.py::test_whoever_logs_a_rebuilt_error_sees_the_line_where_it_was_raised",
    ),
    _m(
        "what no attempt can mend is tried again",
        "_core/policies/retry",
        "_NEVER_RETRIED: Final = (CapExceededError, DryRunError, EncodeError, Fatal)\n",
        "_NEVER_RETRIED: Final = (DryRunError, EncodeError, Fatal)\n",
        "shell/test_hostile_exceptions.py::test_what_no_attempt_can_mend_is_tried_once",
    ),
    _m(
        "the text of an error is waited for",
        "_shell/attempts/asking",
        "answers.get(timeout=self._left)",
        "answers.get(timeout=self._left + 15)",
        "shell/test_hostile_exceptions.py::test_the_text_of_an_error_is_not_waited_for",
    ),
    _m(
        "a loop in a text that was not stopped at once continues for ever",
        "_shell/attempts/asking",
        "        if _given_up:\n",
        "        if not _given_up:\n",
        "shell/test_hostile_exceptions.py::test_a_loop_that_was_not_stopped_is_stopped_when_another_text_is_asked_for",
    ),
    _m(
        "a run without its definition stays blocked for ever",
        "_shell/engine/running",
        "        retry_blocked(conn, now)\n",
        "        assert retry_blocked\n",
        "shell/test_retry_fork.py::test_a_definition_missing_at_recovery_blocks_and_comes_back",
    ),
    # --- cancelling ------------------------------------------------------------------------------------
    _m(
        "a step that is cancelled is not waited for",
        "_core/run/attempts",
        "        else:\n            cancel(self, ex.decision, ex.time)\n        return True\n",
        "        else:\n            return False\n        return True\n",
        "shell/test_structured_cancelling.py::test_of_a_thousand_sagas_cancelled_at_random_moments_nothing_is_left",
    ),
    _m(
        "a child that is cancelled is not waited for",
        "_core/run/leaves",
        "if not self.own or ex.is_unborn(self.run_id) or not ex.note_cancel(self.position):",
        "if True:",
        "core/test_structured_cancelling.py::test_what_follows_a_group_begins_once_its_losers_have_ended",
    ),
    _m(
        "clean-up that begins with a late value is refused",
        "_core/run/nodes",
        " and not in_clean_up(strand.frames())",
        "",
        "core/test_structured_cancelling.py::test_what_was_done_all_the_same_is_undone_whichever_way_the_code_does_so",
    ),
    _m(
        "code hears of a cancellation before what it left open has ended",
        "_core/run/nodes",
        "self.ending = self.ex.completions_within(self.position)",
        "self.ending = []",
        "core/test_completions.py::test_what_was_left_open_has_ended_before_the_code_hears_of_the_cancellation",
    ),
    _m(
        "a child that lost ends with its parent",
        "_core/run/execution",
        "self._is_beside(leaf)",
        "False",
        "core/test_completions.py::test_code_that_leaves_the_loop_leaves_the_rest_running",
    ),
    _m(
        "a deadline has no last call",
        "_core/run/completions",
        "                self._cut_delay()",
        "                self.found = NodeOutcome(error=TimeoutError())\n                self.close_members()",
        "core/test_completions.py::test_a_deadline_has_one_last_call",
    ),
    _m(
        "a schedule that kills the process goes on",
        "_shell/writes/turn_writes",
        "if killed_the_process(turn.decision.reason):",
        "if False:",
        "shell/test_schedules.py::test_a_schedule_whose_runs_kill_the_process_pauses_after_two",
    ),
    _m(
        "any second answer is taken for the first",
        "_shell/requests/callback_requests",
        "if found.failed == failed and codec.canonical_of(found.value) == codec.canonical_of(payload):",
        "if found.failed == failed:",
        "shell/test_callbacks.py::test_an_equal_answer_again_is_accepted_and_another_is_not",
    ),
    _m(
        "an answer of another type is recorded",
        "_shell/engine/backend",
        "if request.answered is not None:",
        "if False:",
        "shell/test_callbacks.py::test_a_wrong_type_is_refused_at_the_caller_and_nothing_is_lost",
    ),
    _m(
        "the token of another file is taken",
        "_core/journal/callback_fates",
        "self._is_known = self._is_known or event.nonce == self.place.nonce",
        "self._is_known = True",
        "shell/test_callbacks.py::test_the_token_of_another_file_is_refused",
    ),
    _m(
        "an answer that comes again is refused",
        "_shell/writes/callback_answers",
        "        fate.tell_pending(from_row(*row))",
        "        pass",
        "shell/test_callbacks.py::test_an_answer_is_kept_by_a_paused_run",
    ),
    _m(
        "an answer that comes before it is awaited is lost",
        "_core/run/callbacks",
        "if found.answer is not None:",
        "if False:",
        "core/test_callbacks.py::test_an_answer_that_comes_before_it_is_awaited_is_kept",
    ),
    _m(
        "an answer behind its deadline is in time until a timer says so",
        "_shell/writes/callback_answers",
        "if due is not None and due <= now:",
        "if False:",
        "shell/test_callbacks.py::test_an_answer_that_is_late_by_a_moment_is_late",
    ),
    _m(
        "a saga that ends with a late value undoes nothing",
        "_core/run/answers",
        "strand is None or not strand.owes_cancel",
        "True",
        "core/test_sagas.py::test_what_came_all_the_same_is_undone_although_the_block_ends_with_it",
    ),
    _m(
        "only the copy of a finally that handles exceptions is clean-up",
        "_core/run/clean_up",
        "each.positions == place",
        "each is instructions[index]",
        "core/test_structured_cancelling.py::test_what_was_done_all_the_same_is_undone_whichever_way_the_code_does_so",
    ),
    _m(
        "what a cancelled step had done all the same is not told first",
        "_core/run/nodes",
        "if self.owes_cancel and asked is not None",
        "if self.owes_cancel and False",
        "core/test_structured_cancelling.py::test_an_outcome_that_came_all_the_same_is_delivered_first",
    ),
    _m(
        "a cancel takes the winner from a race that is settled",
        "_core/run/groups",
        "if self.settled and not self.was_cancelled and self.ex.note_cancel(self.position):",
        "if False:",
        "core/test_structured_cancelling.py::test_a_settled_race_keeps_its_winner_although_the_run_is_cancelled",
    ),
    _m(
        "a cancelled step whose process died begins again",
        "_core/run/step_states",
        '    if step.state.phase == "cancelling":\n',
        "    if False:\n",
        "core/test_structured_cancelling.py::test_a_step_that_was_told_to_end_has_ended_with_its_process",
    ),
    _m(
        "what a run waits for in vain takes the time of its own clean-up",
        "_core/run/execution",
        "        if self._given_up:\n            self._cleaning_since = self.time\n",
        "        if False:\n            self._cleaning_since = self.time\n",
        "core/test_structured_cancelling.py"
        "::test_what_does_not_end_in_time_is_abandoned_and_the_code_has_its_own_time_then",
    ),
    _m(
        "a failure of clean-up is hidden",
        "_core/run/ending",
        "    if trouble is None:\n",
        "    if True:\n",
        "core/test_structured_cancelling.py::test_a_failure_of_clean_up_is_the_error_of_the_cancelled_run",
    ),
    _m(
        "the value of a thread that was cancelled does not count",
        "_shell/attempts/running_attempt",
        "        if not self.in_thread:\n            self._strike()\n",
        "        self._strike()\n",
        "shell/test_structured_cancelling.py::test_a_job_that_completes_all_the_same_has_succeeded",
    ),
    _m(
        "the outcome of an attempt is heard while its function still runs",
        "_shell/turns/attempt_runner",
        "                await self._outlived(attempt, outcome, task)\n",
        "                pass\n",
        "shell/test_threads.py::test_what_follows_a_timeout_does_not_run_beside_the_function",
    ),
    _m(
        "an engine that was opened again begins a step beside its own function",
        "_shell/attempts/steps",
        "                        await last.wait_returned()\n",
        "                        pass\n",
        "shell/test_threads.py::test_a_process_knows_its_own_functions_although_no_word_of_them_could_be_left",
    ),
    _m(
        "a step begins while its function still runs in another process",
        "_shell/attempts/steps",
        "                        await elsewhere.wait_returned()\n",
        "                        pass\n",
        "shell/test_threads.py::test_a_function_in_another_process_is_waited_for_until_that_is_gone",
    ),
    _m(
        "a step that waited for a thread when its engine closed counts as begun",
        "_shell/attempts/running_attempt",
        "                self.task = None\n",
        "                pass\n",
        "shell/test_threads.py::test_a_step_that_waits_for_a_thread_when_the_engine_closes_has_not_begun",
    ),
    _m(
        "a function that outlives its attempt is not told, and nobody is told of it",
        "_shell/turns/attempt_runner",
        "        tell(attempt.cancelled)\n        attempt.await_thread(task)\n",
        "        attempt.await_thread(task)\n",
        "shell/test_threads.py::test_the_next_attempt_begins_when_the_function_has_really_returned",
    ),
    _m(
        "what outlives its attempt still records",
        "_shell/attempts/running_attempt",
        "            self.scope.is_over = True\n",
        "            pass\n",
        "shell/test_threads.py::test_a_function_that_outlives_its_attempt_leaves_no_effect",
    ),
    _m(
        "a function is not told that its engine closes",
        "_shell/turns/driver",
        "        self._attempts.tell()\n",
        "        pass\n",
        "shell/test_threads.py::test_a_long_function_notices_that_it_is_to_end",
    ),
    _m(
        "a thread that hangs has another started in its place",
        "_shell/threads",
        "        while self._count < self.most:\n",
        "        while self.busy < self.most or not self._waiting:\n",
        "shell/test_threads.py::test_a_pool_has_no_more_threads_than_it_may_whatever_hangs",
    ),
    _m(
        "without threads to be had, a call fails",
        "_shell/threads",
        "            except RuntimeError as error:  # of threads or memory\n",
        "            except KeyError as error:\n",
        "shell/test_threads.py::test_a_system_without_threads_makes_calls_wait_and_tells_once",
    ),
    _m(
        "what does not end in time is waited for without end",
        "_shell/turns/attempt_runner",
        "        self._inbox.add(evolve(outcome, at=self._services.clock.now()))\n",
        "        pass\n",
        "shell/test_structured_cancelling.py::test_a_loser_that_does_not_end_is_abandoned",
    ),
    _m(
        "a transaction whose group has failed runs all the same",
        "_shell/turns/transaction_turn",
        "        if decision.cancelled_steps:",
        "        if False:",
        "shell/test_structured_cancelling.py::test_a_transaction_whose_group_has_failed_does_not_run",
    ),
    _m(
        "a child that was joined is waited for although it is left alone",
        "_shell/writes/turn_writes",
        "    for wait in decision.waits_ending:\n",
        "    for wait in ():\n",
        "shell/test_structured_cancelling.py::test_a_joined_child_is_left_alone_and_not_waited_for",
    ),
    # --- signals, timers, keys ---------------------------------------------------------------------------
    _m(
        "a signal that nobody waits for yet is lost",
        "_shell/writes/wakeups",
        "    put_item(conn, run.run, signal, effects, wakes=waiting is not None)\n",
        "    if waiting is not None:\n        put_item(conn, run.run, signal, effects, wakes=True)\n",
        "shell/test_signals.py::test_early_signals_are_kept",
    ),
    _m(
        "a run ends although signals are unread",
        "_shell/writes/turn_writes",
        "effects.listening |= {turn.state.run for turn in ending if _listens(turn, unread)}",
        "pass",
        "shell/test_unread_signals.py::test_a_turn_that_would_end_the_run_is_redone_with_the_signals_that_came_meanwhile",
    ),
    _m(
        "a redone turn takes signals in behind what would end the run",
        "_shell/turns/driver",
        "return sorted(arrived, key=lambda event: not first(event))",
        "return arrived",
        "shell/test_unread_signals.py::test_a_turn_that_would_end_the_run_is_redone_with_the_signals_that_came_meanwhile",
    ),
    _m(
        "a signal behind the end in one turn is lost",
        "_shell/turns/turn_writer",
        "if write.listens and any(event.name not in write.unread for event in write.unconsumed):",
        "if False:",
        "shell/test_unread_signals.py::test_a_signal_behind_the_outcome_that_ends_the_run_is_not_lost",
    ),
    _m(
        "a flood of signals keeps a run alive",
        "_shell/turns/turn_writer",
        "write.listens = execution.hears and execution.heard > self.heard_before",
        "write.listens = execution.hears",
        "shell/test_unread_signals.py::test_a_flood_of_signals_that_nobody_asks_for_cannot_keep_a_run_alive",
    ),
    _m(
        "signals that nobody asked for go with the end",
        "_shell/writes/turn_writes",
        ' AND kind <> {SignalReceived.kind}"',
        '"',
        "shell/test_unread_signals.py::test_a_retry_delivers_what_was_left_unread",
    ),
    _m(
        "the next attempt of a run gets no unread signals",
        "_shell/turns/turn_writer",
        "if execution.ended:  # for its next attempt",
        "if False:",
        "shell/test_unread_signals.py::test_the_next_attempt_of_a_run_gets_what_the_last_one_left_unread",
    ),
    _m(
        "payloads are written without their own type",
        "_core/codec/agreement",
        "return rule.encode(value, depth)",
        "return encode_any(value, depth)",
        "shell/test_signals.py::test_a_payload_arrives_as_the_type_that_is_waited_for",
    ),
    _m(
        "a tag is taken for what stands under it",
        "_core/codec/agreement",
        '            if tagged:\n                return rule.decode(plain["v"])\n',
        "",
        "shell/test_signals.py::test_a_payload_arrives_as_the_type_that_is_waited_for",
    ),
    _m(
        "a bad payload is what blocks or fails the run",
        "_core/run/leaves",
        "refused = SignalPayloadError(self.name, error.path, error.expected, error.reason)",
        "raise error",
        "shell/test_signals.py::test_a_bad_payload_can_be_answered_and_the_next_one_counts",
    ),
    _m(
        "a losing group keeps the signals that it took",
        "_core/run/groups",
        "self.ex.return_signals(lost)",
        "pass",
        "core/test_signals_put_back.py",
    ),
    _m(
        "signals come back behind later ones",
        "_core/run/nodes",
        "self.signals[channel] = deque(sorted(kept))",
        "pass",
        "core/test_signals_put_back.py",
    ),
    _m(
        "a start forgets its signals",
        "_shell/writes/run_writes",
        "for signal in new.signals:",
        "for signal in ():",
        "shell/test_start_with_signals.py::test_a_run_that_is_joined_by_its_key_gets_them_as_well",
    ),
    _m(
        "a signal wakes nobody",
        "_shell/writes/wakeups",
        "signal, effects, wakes=waiting is not None)",
        "signal, effects, wakes=False)",
        "shell/test_signals.py",
    ),
    _m(
        "a signal of a known dedup counts again",
        "_shell/writes/wakeups",
        "dedup is not None\n        and conn",
        "dedup is None\n        and conn",
        "shell/test_signals.py::test_dedup_accepts_an_id_once",
    ),
    _m(
        "a workflow that is retried sends its signal again",
        "_shell/writes/turn_writes",
        "asked.run_id, signal, asked.dedup",
        "asked.run_id, signal, None",
        "shell/test_asking_runs.py::test_a_retry_sends_no_signal_twice",
    ),
    _m(
        "what was asked of another run is asked again by a replay",
        "_core/run/leaves",
        "        if fresh:\n            ex.decision.requests",
        "        if True:\n            ex.decision.requests",
        "core/test_asking_runs.py::test_a_replay_asks_for_nothing_again",
    ),
    _m(
        "a request that is asked for again is not known again",
        "_shell/requests/once",
        "WHERE id = ?",
        "WHERE id = ? AND at < 0",
        "shell/test_once.py",
    ),
    _m(
        "a refusal that is asked for again is decided anew",
        "_shell/requests/once",
        "            result = error\n",
        "            raise\n",
        "shell/test_once.py::test_a_refusal_is_an_answer_too",
    ),
    _m(
        "what a refused request did stays",
        "_shell/requests/once",
        'conn.execute("ROLLBACK TO durable_once")',
        "pass",
        "shell/test_once.py::test_of_what_was_refused_nothing_is_kept_but_the_answer",
    ),
    _m(
        "answers that may be asked for are deleted because there are many",
        "_shell/requests/once",
        "max(by_age, min(surplus[0], now - NEEDED_SECONDS))",
        "max(by_age, surplus[0])",
        "shell/test_once.py::test_so_many_answers_are_kept_and_all_that_may_be_asked_for_again",
    ),
    _m(
        "answers pile up",
        "_shell/tasks/housekeeping",
        "await _tried(house, _forget(house))",
        "pass",
        "shell/test_once.py::test_answers_are_kept_for_an_hour",
    ),
    _m(
        "answers pile up where there is no engine",
        "_shell/client/brief_owner",
        "    forget_answers(conn, env.now)",
        "    _ = forget_answers",
        "shell/test_once.py::test_clients_forget_old_answers_where_there_is_no_engine",
    ),
    # --- the file changes hands --------------------------------------------------------------------------
    _m(
        "an engine that closes refuses its clients",
        "_shell/engine/backend",
        "        running.check_alive()\n",
        "        running.check_open()\n",
        "shell/test_handovers.py::test_a_closing_engine_records_what_clients_ask_for",
    ),
    _m(
        "a client gives up while the file changes hands",
        "_shell/client/client_backend",
        "                if loop.time() >= deadline:\n                    if closed",
        "                if True:\n                    if closed",
        "shell/test_handovers.py::test_clients_do_not_notice_that_owners_are_killed_and_closed",
    ),
    _m(
        "a client gives up with an engine that failed",
        "_shell/client/client_backend",
        "if isinstance(answer, EngineClosedError):",
        "if answer is None:",
        "shell/test_handovers.py::test_an_engine_that_failed_is_given_time_to_be_replaced",
    ),
    _m(
        "an engine fails because a client has the file for a moment",
        "_shell/ownership/opening",
        'error.role != "client" or',
        "True or",
        "shell/test_handovers.py::test_an_engine_waits_for_a_client_that_has_the_file_for_a_moment",
    ),
    _m(
        "an engine believes the name that a killed owner left",
        "_shell/ownership/ownership",
        'role == "client" or holder == before',
        "True",
        "shell/test_ownership.py::test_a_name_that_a_killed_owner_left_is_not_believed_at_once",
    ),
    _m(
        "a client waits for a socket that nobody answers on any more",
        "_shell/client/owner_socket",
        "owned = has_owner(self._path)",
        "owned = True",
        "shell/test_handovers.py::test_a_socket_that_a_killed_owner_left_with_its_children_is_no_owner",
    ),
    _m(
        "a client that is cancelled keeps the file",
        "_shell/ownership/opening",
        '    with Ownership.acquire(path, "client"):\n'
        '        database = await _open(path, durability, now, "client", allow_network_fs=allow_network_fs)\n'
        "        try:\n"
        "            yield database\n"
        "        finally:\n"
        "            await database.aclose()\n",
        '    ownership = Ownership.acquire(path, "client")\n'
        '    database = await _open(path, durability, now, "client", allow_network_fs=allow_network_fs)\n'
        "    try:\n"
        "        yield database\n"
        "    finally:\n"
        "        await database.aclose()\n"
        "        ownership.release()\n",
        "shell/test_handovers.py::test_a_client_that_is_cancelled_lets_go_of_the_file",
    ),
    _m(
        "a client does not say who is silent",
        "_shell/client/owner_socket",
        "            raise JournalAccessError(self._path, msg) from None",
        "            return None",
        "shell/test_handovers.py::test_a_client_says_who_does_not_answer",
    ),
    _m(
        "the name of a file is part of an address",
        "_shell/storage/connections",
        "{quote(os.fsencode(path))}",
        "{path}",
        "shell/test_handovers.py::test_a_client_reads_the_file_of_that_name",
    ),
    _m(
        "what was taken in stays in the inbox",
        "_shell/writes/turn_writes",
        "write_many(conn, _TAKEN_IN, items)",
        "pass",
        "contract/test_journal.py",
    ),
    _m(
        "a run is freed although something arrived",
        "_shell/writes/turn_writes",
        "        effects.kept.add(run)\n        return\n",
        "        pass\n",
        "contract/test_journal.py",
    ),
    _m(
        "a timer fires early",
        "_shell/writes/wakeups",
        "due = conn.execute(_DUE, (now, limit)).fetchall()\n    _fire(",
        "due = conn.execute(_DUE, (now + 60.0, limit)).fetchall()\n    _fire(",
        "contract/test_journal.py",
    ),
    _m(
        "a key may be used twice",
        "_shell/writes/run_writes",
        "    if key is not None and (holder := keys.holder_of(conn, key)) is not None:\n",
        "    if key is None and (holder := keys.holder_of(conn, key)) is not None:\n",
        "shell/test_engine_keys.py::test_a_hundred_concurrent_starts_make_one_run",
    ),
    _m(
        "a key is never free again",
        "_shell/claims/keys",
        "if holder.until is not None and holder.until <= new.started.at:",
        "if False:",
        "shell/test_continuations.py::test_a_key_with_a_time_to_live_is_free_again_afterwards",
    ),
    _m(
        "a caller who left is waited for",
        "_shell/tasks/keyed_futures",
        "if waiting is not None and future in waiting:",
        "if waiting is None:",
        "shell/test_engine_runs.py::test_a_callers_timeout_does_not_touch_the_run",
    ),
    # --- middleware -----------------------------------------------------------------------------------------
    _m(
        "every activation is taken for a beginning",
        "_shell/attempts/hooks",
        "first=not ready.begun,",
        "first=True,",
        "shell/test_middleware.py::test_an_activation_says_whether_it_is_the_first",
    ),
    _m(
        "a run that continues is told as a success",
        "_shell/attempts/hooks",
        'if run.outcome is not None and run.status == "succeeded":\n'
        "                    self._tell_success(run, run.outcome)",
        'if run.status == "succeeded":\n'
        '                    self._tell_success(run, run.outcome or RunResult("succeeded", None, ""))',
        "shell/test_middleware.py::test_successes_are_told_once_they_are_on_disk",
    ),
    # --- attempts -------------------------------------------------------------------------------------------
    _m(
        "a snooze costs an attempt",
        "_core/run/step_states",
        'StepSnoozed: Transition("retrying", (StepEffect.RELEASE, StepEffect.DELAY), crashes=None)',
        'StepSnoozed: Transition("retrying", (StepEffect.RELEASE, StepEffect.DELAY), failures=1, crashes=None)',
        "core/test_step_states.py::test_a_retry_policy_counts_the_attempts_that_began",
    ),
    _m(
        "a crash gives an attempt for nothing",
        "_core/run/step_states",
        "state = state._replace(failures=state.failures + event.crashed)",
        "state = state._replace(failures=state.failures)",
        "core/test_step_states.py::test_a_retry_policy_counts_the_attempts_that_began",
    ),
    _m(
        "a shutdown costs an attempt",
        "_core/run/step_states",
        "state = state._replace(failures=state.failures + event.crashed)",
        "state = state._replace(failures=state.failures + 1)",
        "core/test_step_states.py::test_a_retry_policy_counts_the_attempts_that_began",
    ),
    _m(
        "a workflow begins anew because of a step's RetryAfter",
        "_core/run/ending",
        "if policy is not NEVER:",
        "if True:",
        "shell/test_snooze.py::test_a_retry_after_that_reaches_the_end_of_a_workflow_fails_it",
    ),
    _m(
        "the timer of a snooze is forgotten by an export",
        "_core/journal/history",
        "            case StepRetrying() | StepSnoozed():\n                timers",
        "            case StepRetrying():\n                timers",
        "core/test_history.py::test_a_step_that_snoozes_waits_for_its_timer_also_in_a_copy",
    ),
    # --- who goes first -------------------------------------------------------------------------------------
    _m(
        "a place in line from the day of the start",
        "_shell/rows/new_runs",
        "place=0.0 if is_delayed or places is None else",
        "place=0.0 if places is None else",
        "shell/test_fairness.py::test_what_is_scheduled_stands_in_nobodys_way",
    ),
    _m(
        "what comes due goes before all that waits",
        "_shell/writes/wakeups",
        "            _line_up(conn, run, lines, now)\n",
        "",
        "shell/test_fairness.py::test_what_comes_due_does_not_go_before_what_waits_longer",
    ),
    _m(
        "tenants wait for the first of them",
        "_core/admission",
        "        if value is not None:\n            group = (queue, BY_LABEL + value)\n        elif",
        "        if",
        "shell/test_fairness.py::test_the_values_of_a_label_take_turns",
    ),
    _m(
        "a client does not know by what a queue is fair",
        "_shell/engine/running",
        "        register_fairness(conn, settings.queues)\n",
        "",
        "shell/test_fairness.py::test_turns_by_a_label_hold_across_a_restart_for_clients_and_batches",
    ),
    # --- time -----------------------------------------------------------------------------------------------
    _m(
        "the time of a run counts its queue",
        "_shell/turns/turn_writer",
        'self._ready.kind == "workflow" and self._ready.timeout is not None:\n'
        "                write.deadline = now + self._ready.timeout",
        "self._ready.timeout is not None:\n                write.deadline = self._ready.ready_at + self._ready.timeout",
        "shell/test_times.py::test_the_timeout_of_a_workflow_counts_from_when_it_first_begins",
    ),
    _m(
        "a copy has all the time in the world",
        "_shell/turns/driver",
        "self._writer.announced = loaded.begun",
        "self._writer.announced = len(events) > 1",
        "shell/test_times.py::test_a_copy_has_a_time_of_its_own",
    ),
    _m(
        "an attempt of a job has no end",
        "_core/program/functions",
        "                timeout=options.timeout,\n",
        "",
        "shell/test_times.py::test_an_attempt_of_a_job_that_hangs_is_cut_off_and_tried_again",
    ),
    _m(
        "begins after it has expired",
        "_shell/turns/driver",
        "return arrived if now < expires_at else [RunExpired(expires_at, now), *arrived]",
        "return arrived",
        "shell/test_times.py::test_a_run_that_expired_while_nothing_ran_never_begins",
    ),
    _m(
        "expires while it runs",
        "_core/run/execution",
        "if self._begun or self._cancelling or self.history.run_attempt > 1:",
        "if self._cancelling:",
        "core/test_cancelling.py::test_a_workflow_that_has_begun_does_not_expire",
    ),
    _m(
        "a retried run expires again",
        "_shell/requests/history_requests",
        "SET compensated = 0, expires_at = NULL WHERE run = ?",
        "SET compensated = 0, expires_at = expires_at WHERE run = ?",
        "shell/test_times.py::test_a_failed_run_that_is_retried_does_not_expire",
    ),
    _m(
        "a run that once expired has never begun",
        "_shell/requests/history_requests",
        "for event in history.effective(events)[0]):\n",
        "for event in events):\n",
        "shell/test_retry_fork.py::test_a_run_that_once_expired_has_begun_when_it_is_retried_again",
    ),
    _m(
        "clearing a queue cancels what has begun",
        "_shell/requests/queue_requests",
        "AND status = 'pending' AND started_at IS NULL",
        "AND status = 'pending'",
        "shell/test_retry_fork.py::test_clearing_a_queue_leaves_a_retried_run_that_waits_for_its_slot",
    ),
    _m(
        "who waits for a run that ends unborn never hears of it",
        "_shell/tasks/scheduler",
        "            self._again.pop(ended.run, None)  # asked for before that end: nobody is told of another one\n",
        "",
        "shell/test_cancel_pause.py::test_who_waits_for_a_run_that_was_cancelled_twice_hears_of_it",
    ),
    # --- replay ---------------------------------------------------------------------------------------------
    _m(
        "changed code goes on with other commands",
        "_core/run/nodes",
        "if type(recorded) is not type(event) or not alike(recorded, event, aliases):",
        "if False:",
        "shell/test_retry_fork.py::test_changed_code_blocks_and_goes_on_when_restored",
    ),
    _m(
        "changed code goes on with a command of another name",
        "_core/run/divergence/report",
        "(requested.name == recorded.name or recorded.name in aliases) and ",
        "",
        "core/test_divergence.py",
    ),
    _m(
        "context variables of one run reach the next",
        "_core/run/execution",
        "if self.around is None:\n                return self._context.run(turn, *args)",
        "if self.around is None:\n                return turn(*args)",
        "shell/test_engine_runs.py::test_context_variables_do_not_leak_between_runs",
    ),
    # --- schedules and hooks -----------------------------------------------------------------------------
    _m(
        "a tick that its key stopped taken for one that ran",
        "_shell/writes/schedule_writes",
        "    if run_id == new.run_id:\n        return with_run(row, run_id)",
        "    if run_id:\n        return with_run(row, run_id)",
        "shell/test_schedules.py::test_a_tick_whose_key_is_held_by_a_run_that_has_ended_is_told",
    ),
    _m(
        "a run that holds its schedule up passed over in silence",
        "_shell/reads/schedule_rows",
        'if status == "paused":',
        'if status == "stopped":',
        "shell/test_schedules.py::test_a_run_that_holds_its_schedule_up_is_named",
    ),
    _m(
        "a clock that was ahead holding a schedule up",
        "_shell/writes/schedule_writes",
        "if upto > now + AHEAD",
        "if upto > now + 1e12",
        "shell/test_schedules.py::test_a_clock_that_was_years_ahead_stops_no_schedule",
    ),
    _m(
        "a tick of the past that starts a second run",
        "_shell/writes/schedule_writes",
        "    if run_exists(conn, tick.run.run_id):\n        return row\n    if tick",
        "    if tick",
        "shell/test_stored_schedules.py::test_the_past_is_made_up_for",
    ),
    _m(
        "a tick that gives a changed schedule its old timetable",
        "_shell/writes/schedule_writes",
        " or _beat(row) != _beat(before):",
        ":",
        "shell/test_schedules.py::test_ticks_of_a_timetable_that_was_changed_meanwhile_start_nothing",
    ),
    _m(
        "the whole line looked up for each tick that is made up for",
        "_shell/writes/schedule_writes",
        "        ahead = tick.run if tick",
        "        ahead = None if tick",
        "shell/test_schedules.py::test_ticks_that_queue_cost_the_same_however_many_are_recorded_at_once",
    ),
    _m(
        "a run that queues behind nobody",
        "_shell/writes/schedule_writes",
        "evolve(tick.run, behind=(ahead.run,))",
        "tick.run",
        "shell/test_schedules.py::test_ticks_that_queue_cost_the_same_however_many_are_recorded_at_once",
    ),
    _m(
        "a schedule of the program deleted by a client",
        "_shell/requests/schedule_requests",
        "else row.starts is None",
        "else False",
        "shell/test_stored_schedules.py::test_what_the_program_lists_is_changed_in_the_program",
    ),
    _m(
        "a secret of a step recorded by the engine's codec",
        "_shell/attempts/steps",
        "codec = definition.codec_of(self._codec)",
        "codec = self._codec",
        "shell/test_own_codecs.py::test_a_step_with_a_codec_of_its_own_is_recorded_by_it",
    ),
    _m(
        "a class of the program's own that does not come back",
        "_core/codec/value_types",
        "Rule(name, verified(encode, decode, name), decode,",
        "Rule(name, encode, decode,",
        "shell/test_own_codecs.py::test_what_does_not_come_back_is_refused_when_it_is_recorded",
    ),
    _m(
        "a restart that undoes what was changed of a limit",
        "_shell/claims/slots",
        "concurrency = iif(own IS NULL, excluded.concurrency, concurrency)",
        "concurrency = excluded.concurrency",
        "shell/test_changed_numbers.py::test_a_limit_gets_other_numbers_while_it_runs",
    ),
    _m(
        "a restart that undoes what was changed of a queue",
        "_shell/engine/running",
        "        admission.change(queue, *changed)",
        "        pass",
        "shell/test_changed_numbers.py::test_a_queue_gets_other_numbers_while_it_runs",
    ),
    _m(
        "a hook that raised forgotten",
        "_shell/writes/turn_writes",
        "        if turn.broken_hooks:\n",
        "        if False and turn.broken_hooks:\n",
        "shell/test_continuations.py::test_a_hook_that_raises_is_told_on_its_run",
    ),
    _m(
        "a hook made up for twice",
        "_shell/writes/hook_writes",
        "    return claimed.rowcount == 1",
        "    return True",
        "shell/test_continuations.py::test_hooks_that_are_asked_for_twice_at_once_are_called_once",
    ),
    # --- groups ----------------------------------------------------------------------------------------
    _m(
        "a tolerated failure ends its group",
        "_core/policies/settled",
        "if failed > self.tolerated(size):",
        "if failed >= self.tolerated(size):",
        "core/test_groups.py::test_a_rule_says_why_a_group_has_ended",
    ),
    _m(
        "the file tolerates failures without end",
        "_shell/writes/feeds",
        "SET tolerate = tolerate - 1",
        "SET tolerate = tolerate",
        "shell/test_feeds.py::test_the_file_tolerates_what_the_group_does",
    ),
    _m(
        "a run does not know of a child that a feed starts while it closes it",
        "_shell/writes/turn_writes",
        "if turn.feeds_next and _is_outrun(conn, turn)}",
        "if False}",
        "shell/test_feeds.py::test_a_run_knows_every_child_of_a_feed_that_it_closes",
    ),
    _m(
        "a failing group loses its successes",
        "_core/run/groups",
        "set_attribute(error, SETTLED, self.outcomes_of_members(failing=True))",
        "pass",
        "core/test_groups.py::test_a_failing_group_without_a_rule_tells_of_its_successes",
    ),
    _m(
        "a group that has begun takes the window of newer code",
        "_core/run/groups",
        "        if fresh:\n            self.concurrency",
        "        if True:\n            self.concurrency",
        "core/test_groups.py::test_the_recorded_arrangement_holds_for_a_group_that_has_begun",
    ),
    _m(
        "members of a mapping take each other's places",
        "_core/run/groups",
        "self._order_by_names(opened, op.options.names)",
        "pass",
        "core/test_groups.py::test_a_mapping_in_another_order_is_the_same_group",
    ),
    _m(
        "a signal is a member's value, and put back",
        "_core/run/groups",
        "outcome.cancelled or given_back",
        "outcome.cancelled",
        "core/test_groups.py::test_a_signal_that_a_failing_group_took_is_not_told_as_a_value",
    ),
    # --- damage and secrets --------------------------------------------------------------------------------
    _m(
        "a text that is none hides all rows",
        "_shell/reads/lenient",
        'if "decode" not in str(error):',
        "if error:",
        "crash/test_fuzz.py::test_what_was_found_once_stays_mended",
    ),
    _m(
        "a number that is too large keeps its place",
        "_shell/engine/running",
        "        mend_numbers(conn)\n",
        "",
        "crash/test_fuzz.py::test_what_was_found_once_stays_mended",
    ),
    _m(
        "the message of an error is recorded in plain",
        "_core/run/ending",
        "codec.conceal_message(describe(failure))\n    if",
        "describe(failure)\n    if",
        "shell/test_concealed_texts.py",
    ),
    _m(
        "the digest of another key does not fit",
        "_core/codec/digests",
        "key is None or name != _name_of(key) or",
        "key is not None and",
        "shell/test_concealed_texts.py",
    ),
    # --- code that is not deterministic ------------------------------------------------------------------
    _m(
        "other arguments are no matter",
        "_core/run/divergence/comparing",
        "return codec.fits_digest(carried, recorded.digest)",
        "return True",
        "shell/test_changed_arguments.py",
    ),
    _m(
        "other arguments are no error in tests",
        "_core/run/nodes",
        "if self.comparing.strict:",
        "if False:",
        "shell/test_changed_arguments.py",
    ),
    _m(
        "reads of what is outside are not told",
        "_shell/turns/outside_reads",
        "if self._found and (",
        "if False and (",
        "testing/test_outside_reads.py",
    ),
    _m(
        "what libraries read is taken for workflow code",
        "_shell/turns/outside_reads",
        "            if is_library(file):\n                return None\n",
        "",
        "testing/test_outside_reads.py",
    ),
    _m(
        "steps are linted as workflow code is",
        "_debug/lint",
        'if any(_module_of(self.value_of(maker)).startswith("durable.") for maker in makers):',
        "if False:",
        "debug/test_lint.py",
    ),
    _m(
        "a set that is sorted is a finding",
        "_debug/lint",
        "if node not in self._unordered and self.is_set(node):",
        "if self.is_set(node):",
        "debug/test_lint.py",
    ),
    _m(
        "an exact id in a file is a beginning",
        "_cli/journals/finding",
        "    if text in near:\n        return [near[text]]\n",
        "",
        "cli/test_debug.py",
    ),
    # --- sagas -----------------------------------------------------------------------------------------
    _m(
        "an error of a transaction outside of workflows commits what it wrote",
        "_shell/attempts/transaction",
        '        conn.execute("ROLLBACK TO durable_transaction")\n',
        "",
        "shell/test_outside_transactions.py::test_what_fails_leaves_nothing",
    ),
    _m(
        "a migration that fails keeps those before it",
        "_shell/engine/application_schema",
        "                raise MigrationError(path, _called(number), one_line(error)) from error",
        "                return",
        "shell/test_application_schema.py::test_a_migration_that_fails_half_way_leaves_the_file_as_it_was",
    ),
    _m(
        "a replay emits again",
        "_core/run/answers",
        "        if not ex.replaying:\n            ex.decision.emitted",
        "        if True:\n            ex.decision.emitted",
        "shell/test_streams.py::test_what_is_emitted_is_read_in_its_order_and_once",
    ),
    _m(
        "attributes that cannot be merged spoil what others say",
        "_shell/writes/said_writes",
        "    except DurableError as error:",
        "    except KeyError as error:",
        "shell/test_streams.py::test_what_cannot_be_written_for_one_run_is_lost_for_that_run_alone",
    ),
    _m(
        "what is being written takes no room in the buffer",
        "_shell/commits/commits",
        "return self._unsaid + len(self._from_threads)",
        "return len(self._words) + len(self._from_threads)",
        "shell/test_streams.py::test_the_buffer_is_bounded_while_the_disk_is_full",
    ),
    _m(
        "an item bears the number of the first attempt",
        "_shell/turns/notes",
        "Emitted(self._run, stream, about.position, about.attempt,",
        "Emitted(self._run, stream, about.position, 1,",
        "shell/test_streams.py::test_an_attempt_that_is_made_again_emits_again",
    ),
    _m(
        "news of a run is told to nobody",
        "_shell/tasks/news",
        "        if self:",
        "        if False:",
        "shell/test_streams.py::test_what_is_emitted_is_read_in_its_order_and_once",
    ),
    _m(
        "an outcome overtakes what its step has said",
        "_shell/commits/commits",
        "            if self._words:  # no outcome is to overtake what its step has said",
        "            if False:  # no outcome is to overtake what its step has said",
        "shell/test_streams.py::test_items_are_there_before_the_outcome_of_their_step",
    ),
    _m(
        "resources are not left",
        "_shell/engine/running",
        "parts.push_async_callback(settings.resources.aclose, settings.grace)",
        "pass",
        "shell/test_resources.py::test_what_is_interrupted_ends_before_its_resources_do",
    ),
    _m(
        "a cancelled saga leaves what it did",
        "_core/authoring/sagas",
        "not isinstance(error, GeneratorExit)",
        "not isinstance(error, GeneratorExit | RunCancelled)",
        "core/test_sagas.py::test_a_cancellation_is_undone_too",
    ),
    _m(
        "a saga lets a cancel cut its compensations off",
        "_core/authoring/sagas",
        "                cut_off = cancelled\n                await op",
        "                cut_off = cancelled",
        "core/test_sagas.py::test_a_cancel_while_it_compensates_cuts_no_compensation_off",
    ),
    # --- clocks ----------------------------------------------------------------------------------------
    _m(
        "timers wait for a clock that was set back",
        "_shell/clock",
        "wall if wall > least else least",
        "wall",
        "shell/test_clocks.py::test_what_waits_a_second_waits_a_second_however_the_clock_is_set",
    ),
    _m(
        "schedules stand still when the clock is set back",
        "_shell/clock",
        "self._now + SLOWED * (looked_at - self._looked_at)",
        "self._now",
        "shell/test_clocks.py::test_schedules_neither_stand_still_nor_tick_twice_when_the_clock_is_set_back",
    ),
    # --- hosts -----------------------------------------------------------------------------------------
    _m(
        "generators of Cython are taken",
        "_core/program/functions",
        "if type(fn).__name__ == _CYTHON and not inspect.iscoroutinefunction(fn):",
        "if False:",
        "hosts/test_hosts.py::test_an_async_generator_of_cython_is_refused",
    ),
    # --- event loops -----------------------------------------------------------------------------------
    _m(
        "another event loop is not refused",
        "_shell/engine/backend",
        "if running_loop() is not running.loop:",
        "if False:",
        "shell/test_loops.py::test_what_is_asked_on_another_loop_is_refused_before_anything_is_recorded",
    ),
    _m(
        "a closing that is cut off with its caller",
        "_shell/engine/backend",
        "await to_its_end(self._closing)",
        "await asyncio.shield(self._closing)",
        "shell/test_loops.py::test_an_engine_that_is_left_because_something_was_cancelled_has_closed",
    ),
    _m(
        "a lock that outlives its event loop",
        "_shell/ownership/ownership",
        "each.path == real and each.is_orphan",
        "False",
        "shell/test_loops.py::test_an_engine_whose_loop_is_gone_gives_the_file_up_to_whoever_opens_it_next",
    ),
    _m(
        "a lock that outlives its garbage",
        "_shell/engine/running",
        "running._orphaned = weakref.finalize(running, _abandon, database, ownership)",
        "running._orphaned = weakref.finalize(running, int)",
        "shell/test_loops.py::test_an_engine_that_nobody_holds_any_more_gives_the_file_up",
    ),
    _m(
        "an engine that nobody holds makes no way",
        "_shell/engine/backend",
        "if self.face is not None and self.face() is None:",
        "if False:",
        "shell/test_loops.py::test_a_cell_of_a_notebook_may_be_run_again",
    ),
    _m(
        "from_thread waits for the loop that it blocks",
        "_shell/engine/from_thread",
        "if holds_writer.get():",
        "if False:",
        "shell/test_loops.py::test_from_thread_does_not_wait_for_itself",
    ),
    # --- an engine that cannot go on, and one that is told to end --------------------------------------------
    _m(
        "what passes ends the engine",
        "_core/supervision",
        "    if isinstance(error, (JournalError, OSError, MemoryError)):\n        return True\n",
        "    if isinstance(error, (JournalError, OSError, MemoryError)):\n        return False\n",
        "shell/test_supervision.py::test_a_second_name_of_the_file_is_told_and_passes",
    ),
    _m(
        "a lost file is waited for",
        "_core/supervision",
        "(JournalLostError, ForeignJournalError, JournalVersionError)",
        "(ForeignJournalError, JournalVersionError)",
        "shell/test_supervision.py::test_what_is_lost_fails_the_engine_loudly",
    ),
    _m(
        "the body of async with is not told",
        "_shell/engine/backend",
        "            self.body.interrupt()\n",
        "",
        "shell/test_supervision.py::test_what_is_lost_fails_the_engine_loudly",
    ),
    _m(
        "a failed engine keeps its file",
        "_shell/engine/backend",
        "            self._closing = self._begin_close(self.running)\n\n    def _begin_close",
        "            self.running.closing = True\n\n    def _begin_close",
        "shell/test_supervision.py::test_a_failed_engine_gives_its_file_to_a_standby",
    ),
    _m(
        "watchers of a failed engine hear of nothing",
        "_shell/engine/running",
        "        self.broadcast.close(made)\n",
        "        self.broadcast.close()\n",
        "shell/test_supervision.py::test_what_is_lost_fails_the_engine_loudly",
    ),
    _m(
        "timers that could not be fired are forgotten",
        "_shell/tasks/scheduler",
        "                    self._alarm.set(self._services.clock.now())  # they are due still\n",
        "",
        "shell/test_supervision.py::test_a_background_task_begins_again_after_what_passes",
    ),
    _m(
        "a folder that is away is taken for deleted",
        "_shell/storage/folder",
        "        return known is not None and (found is None or not os.path.samestat(found, known))\n",
        "        return known is None\n",
        "shell/test_supervision.py::test_a_folder_that_is_away_for_a_while_is_waited_for",
    ),
    _m(
        "a WAL that cannot be emptied is not told",
        "_shell/tasks/housekeeping",
        '            self.troubles.begin("wal", told)\n',
        "            del told\n",
        "shell/test_supervision.py::test_a_wal_that_another_program_holds_is_told_and_recovers",
    ),
    _m(
        "readers that take turns are not waited for",
        "_shell/tasks/housekeeping",
        "await self.database.restart_wal() if grows else pages == moved",
        "pages == moved",
        "shell/test_supervision.py::test_readers_that_take_turns_do_not_let_the_wal_grow",
    ),
    _m(
        "a file that has no thread for its connection ends the engine",
        "_shell/storage/database",
        'raise JournalIOError(self.path, f"no thread for its connection: {error}") from error',
        "raise",
        "shell/test_supervision.py::test_a_reopening_waits_for_threads",
    ),
    _m(
        "a failed engine is taken for one that died",
        "_shell/ownership/ownership",
        '                self._left = b""  # no last words: it gave the file up\n',
        "                pass\n",
        "cli/test_doctor.py::test_an_engine_that_failed_is_told_until_the_next_one_comes",
    ),
    _m(
        "serve() keeps the signals",
        "_shell/engine/serving",
        "            signal.signal(number, signal.SIG_DFL if handler is None else handler)\n",
        "            del number, handler\n",
        "shell/test_serving.py::test_serve_ends_with_the_engine",
    ),
    _m(
        "a second signal is ignored",
        "_shell/engine/serving",
        "                running.scheduler.interrupt()\n",
        "                pass\n",
        "shell/test_serving.py::test_deploys_during_a_long_step_are_no_crashes_of_it",
    ),
    # --- several workers ------------------------------------------------------------------------------
    _m(
        "a worker that stands by is not healthy",
        "_shell/engine/standby",
        'Health("healthy") if self.is_waiting else',
        'Health("degraded") if self.is_waiting else',
        "shell/test_service.py::test_health_is_that_of_the_process_and_not_of_its_turn",
    ),
    _m(
        "a service waits for the transaction it is asked in",
        "_shell/engine/service",
        "        self._backend.on_request = refuse_in_transaction",
        "        self._backend.on_request = lambda _: None",
        "shell/test_service.py::test_a_request_inside_an_async_transaction_is_refused",
    ),
    # --- where a journal may lie -----------------------------------------------------------------------
    _m(
        "a file that is mounted by itself is let pass",
        "_shell/storage/location",
        "    if path in (mount for mount, _ in _mounts()):",
        "    if path in ():",
        "shell/test_location.py::test_a_file_that_is_mounted_by_itself_is_refused",
    ),
    _m(
        "a long path is bound as it is",
        "_shell/requests/sockets",
        "    if len(os.fsencode(place)) <= _ADDRESS_BYTES:",
        "    if True:",
        "shell/test_location.py::test_every_path_works_for_engine_client_and_command_line",
    ),
    _m(
        "a forked child keeps listening for its parent",
        "_shell/tasks/server",
        "os.register_at_fork(after_in_child=_hang_up_in_child)",
        "os.register_at_fork(after_in_child=lambda: None)",
        "shell/test_handovers.py::test_forked_children_do_not_listen_for_an_owner_that_was_killed",
    ),
    _m(
        "a torn copy is taken for a journal",
        "_shell/storage/copies/torn",
        '    if found != "ok":',
        "    if False:",
        "shell/test_torn_copies.py::test_a_torn_copy_is_refused_untouched_and_told_by_doctor",
    ),
    _m(
        "a file that was closed is taken for a live one's copy",
        "_shell/engine/running",
        "    if not ownership.failure:",
        "    if False:",
        "shell/test_torn_copies.py::test_what_was_closed_killed_or_backed_up_is_no_copy",
    ),
    _m(
        "a process of our number is taken for us",
        "_shell/ownership/ownership",
        '" (this process)" if Ownership.is_ours(fd) else',
        '" (this process)" if True else',
        "shell/test_location.py::test_a_process_of_our_number_in_another_container_is_not_taken_for_us",
    ),
    # --- requests into runs ----------------------------------------------------------------------------
    _m(
        "a request is answered twice",
        "_core/run/leaves",
        "        if asked.id not in ex.unanswered:",
        "        if False:",
        "core/test_requests.py::test_a_request_is_answered_once",
    ),
    _m(
        "what was asked under one dedup is asked again",
        "_shell/writes/answers",
        "        if first is not None:",
        "        if False:",
        "shell/test_asking.py::test_who_asks_again_under_the_same_dedup_gets_the_answer_that_there_is",
    ),
    _m(
        "the first answer does not stay",
        "_shell/writes/answers",
        "WHERE request = ? AND run = ? AND answered_at IS NULL",
        "WHERE request = ? AND run = ?",
        "shell/test_asking.py::test_the_first_answer_stays_whatever_a_retry_comes_to",
    ),
    _m(
        "the next attempt does not hear what the last one left unanswered",
        "_shell/turns/turn_writer",
        "*execution.unanswered_requests(), ",
        "",
        "shell/test_asking.py::test_the_next_attempt_of_a_run_answers_what_the_last_one_did_not",
    ),
    _m(
        "who asks is not told of the answer",
        "_shell/tasks/result_waiters",
        "            self.resolve(_ANSWERED + request, None)",
        "            pass",
        "shell/test_asking.py::test_a_run_is_asked_and_answers",
    ),
    _m(
        "answers do not go over to what a run continues as",
        "_shell/writes/turn_writes",
        "    answers.carry_over(conn, run, successor.run)",
        "    pass",
        "shell/test_asking.py::test_answers_and_what_is_unheard_go_over_to_the_run_as_which_it_continues",
    ),
)


def changed(mutant: Mutant, source: str) -> str:
    """
    The source with the change.

    Raises:
        ValueError: The text to change is not there exactly once.
    """
    if source.count(mutant.old) != 1:
        msg = f"{mutant.breaks!r}: {mutant.old!r} is {source.count(mutant.old)} times in {mutant.file}, expected once"
        raise ValueError(msg)
    return source.replace(mutant.old, mutant.new)


def _passes(tree: Path, test: str) -> tuple[bool, str]:
    """Whether the test passes in a copy of the tree, and the last line that it printed."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider", test]
    env = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return False, f"hangs for {PATIENCE} s"
    if done.returncode not in (0, 1):  # nothing collected, a wrong option, an interrupt: no verdict
        msg = f"{test} could not be run:\n{done.stdout}{done.stderr}"
        raise RuntimeError(msg)
    return done.returncode == 0, next(
        (line.split(" - ")[0] for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))), ""
    )


def _verdict(mutant: Mutant) -> tuple[Mutant, str, bool]:
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        tree = Path(folder)
        for name in ("durable", "tests", "examples"):
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", tree)
        file = tree / mutant.file
        file.write_text(changed(mutant, file.read_text()))
        passed, line = _passes(tree, mutant.test)
        return mutant, "SURVIVES" if passed else line.removeprefix("FAILED ").removeprefix("ERROR "), not passed


def main(wanted: list[str]) -> int:
    """Try the mutants whose names contain one of *wanted*, or all; the exit code."""
    mutants = [mutant for mutant in MUTANTS if not wanted or any(word in mutant.breaks for word in wanted)]
    survivors = 0
    for test in sorted({mutant.test for mutant in mutants}):
        if not (outcome := _passes(ROOT, test))[0]:
            print(f"{test} fails as it is: {outcome[1]}")
            return 1
    with ThreadPoolExecutor(WORKERS) as pool:
        for mutant, line, killed in pool.map(_verdict, mutants):
            print(
                f"{'killed  ' if killed else 'SURVIVES'}  {mutant.breaks:<52}  {line if killed else mutant.test}",
                flush=True,
            )
            survivors += not killed
    print(f"{len(mutants)} mutants, {len(mutants) - survivors} killed, {survivors} survive")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
