"""
What happens to an engine in production, what it does then, and which test shows it: one table, kept complete.
"""

import ast
import functools
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

LOST = "shell/test_supervision.py::test_what_is_lost_fails_the_engine_loudly"
FAILED = "shell/test_supervision.py::test_a_failed_engine_gives_its_file_to_a_standby"
HEALTH = "shell/test_supervision.py::test_health_says_what_a_probe_needs"
DRAINING = "shell/test_open_close.py::test_a_step_knows_that_its_engine_drains"
PID_1 = "test_production.py::test_as_pid_1_it_ends_by_sigterm"
WORKERS = "examples/test_service.py::test_nothing_is_lost_or_doubled_however_the_workers_end"
TAKEN = "shell/test_service.py::test_an_engine_that_finds_the_file_taken_names_what_several_processes_use"
RESTORED = "shell/test_backups.py::test_restoring_sets_aside_what_was_there_with_its_wal"
TORN = "shell/test_torn_copies.py::test_a_torn_copy_is_refused_untouched_and_told_by_doctor"
COMMANDS = "test_production.py::test_the_commands_run_beside_the_program_and_after_it"
POOL = "shell/test_threads.py::test_a_pool_has_no_more_threads_than_it_may_whatever_hangs"
ELSEWHERE = "shell/test_loops.py::test_what_is_asked_on_another_loop_is_refused_before_anything_is_recorded"
LEFT = "shell/test_loops.py::test_an_engine_that_is_left_because_something_was_cancelled_has_closed"
PATHS = "shell/test_location.py::test_every_path_works_for_engine_client_and_command_line"
NO_JOURNAL = "shell/test_location.py::test_what_cannot_be_a_journal_is_told_first"
HEADER = "shell/test_open_close.py::test_the_header_of_a_file_is_the_applications"
SAME_NUMBER = "shell/test_location.py::test_a_process_of_our_number_in_another_container_is_not_taken_for_us"
CLOCK = "shell/test_clocks.py::test_what_waits_a_second_waits_a_second_however_the_clock_is_set"
HELD_WAL = "shell/test_supervision.py::test_a_wal_that_another_program_holds_is_told_and_recovers"
HOSTS = "hosts/test_hosts.py::test_a_program_runs_in_every_form"
LOOPS = "hosts/test_hosts.py::test_a_program_runs_on_every_event_loop"

#: By what they are about: situation -> what happens, and the test.
SITUATIONS = {
    "the engine never dies in silence": {
        "file, WAL, lock or folder is deleted or replaced": ("the body of async with raises EngineFailedError", LOST),
        "so, and somebody waits for a result, an event, or wait_closed()": ("each gets the error", LOST),
        "so, and nobody waits": ("one critical line names cause and remedy; engine.failure", LOST),
        "the engine failed, its process lives on": ("the lock is free, a standby takes over", FAILED),
        "the engine failed, and is opened again": (
            "it works",
            "shell/test_supervision.py::test_an_engine_that_failed_may_be_opened_again",
        ),
        "the body ends by an error of its own, or is cancelled, as the engine fails": (
            "its own end stays",
            "shell/test_supervision.py::test_the_body_keeps_its_own_end",
        ),
        "a backup tool makes a hard link": (
            "degraded, and over when that is gone",
            "shell/test_supervision.py::test_a_second_name_of_the_file_is_told_and_passes",
        ),
        "the file is looked at while it is opened anew": (
            "no loss is seen",
            "shell/test_database.py::test_a_look_during_a_reopening_sees_no_loss",
        ),
        "the folder is away for a while": (
            "degraded; what is recorded meanwhile is in the file",
            "shell/test_supervision.py::test_a_folder_that_is_away_for_a_while_is_waited_for",
        ),
        "no thread or descriptor for a second": (
            "waited out",
            "shell/test_supervision.py::test_a_moment_without_threads_or_descriptors_passes",
        ),
        "a background task meets what passes": (
            "tried again with longer pauses, and told",
            "shell/test_supervision.py::test_a_background_task_begins_again_after_what_passes",
        ),
        "it meets what nobody foresaw": (
            "tried 120 times, then the engine fails",
            "core/test_supervision.py::test_a_bug_gets_some_tries_and_then_ends_the_engine",
        ),
        "a probe asks": ("healthy, degraded and why, failed, closed", HEALTH),
        "a probe of readiness, one of liveness": (
            "the guide's recipe",
            "test_production.py::test_the_graces_fit_into_one_another",
        ),
        "durable doctor asks a live engine": (
            "healthy, or degraded and why",
            "cli/test_doctor.py::test_a_live_engine_says_how_it_is",
        ),
        "durable doctor, after an engine failed": (
            "failed and why, exit code 1",
            "cli/test_doctor.py::test_an_engine_that_failed_is_told_until_the_next_one_comes",
        ),
    },
    "a deploy is not a crash": {
        "SIGTERM or Ctrl-C": ("serve() drains and returns", "shell/test_serving.py::test_a_signal_drains_the_engine"),
        "docker stop, where the program is PID 1": ("serve() drains and returns", PID_1),
        "three deploys during one long step": (
            "it is no poison",
            "shell/test_serving.py::test_deploys_during_a_long_step_are_no_crashes_of_it",
        ),
        "killed while it drains": (
            "an interruption",
            "shell/test_open_close.py::test_a_death_while_the_engine_drains_is_no_crash",
        ),
        "killed after an earlier engine has drained": (
            "a crash",
            "shell/test_open_close.py::test_a_death_after_a_drain_of_an_earlier_engine_is_a_crash",
        ),
        "no grace is given": (
            "5 s; supervisors give 10 and more",
            "shell/test_open_close.py::test_the_grace_is_below_what_supervisors_give",
        ),
        "a step asks whether its engine drains": ("context().draining", DRAINING),
        "a step is cut off after the grace": (
            "it runs again, which is no failed attempt",
            "shell/test_open_close.py::test_what_outlasts_the_grace_is_cut_off_and_runs_again",
        ),
        "it keeps a cursor, or memos": (
            "it resumes there",
            "shell/test_steps.py::test_a_cursor_is_kept_across_attempts",
        ),
    },
    "several workers": {
        "several workers": (
            "each is asked, one executes",
            "shell/test_service.py::test_each_is_asked_and_one_executes",
        ),
        "uvicorn or gunicorn with workers, --preload: kill, HUP, a second server": ("nothing lost or doubled", WORKERS),
        "the executing worker is killed": ("another takes over, within a second on a free machine", WORKERS),
        "it closes": (
            "another takes over",
            "shell/test_service.py::test_another_takes_over_from_the_one_that_closes",
        ),
        "its engine fails": (
            "another takes over; it stands by",
            "shell/test_service.py::test_an_engine_that_fails_gives_the_file_to_another_and_stands_by_again",
        ),
        "gunicorn USR2": ("the new master's workers continue", "test_production.py::test_gunicorn_is_replaced_by_usr2"),
        "uvicorn --reload": ("the new code continues", "test_production.py::test_uvicorn_reloads"),
        "a rolling update on one volume": (
            "the new pod is ready before its turn",
            "shell/test_service.py::test_opening_does_not_wait_for_the_turn_to_execute",
        ),
        "a second engine opens the file": ("refused, naming Service and Client", TAKEN),
        "a request handler waits for a result at SIGTERM": (
            "EngineClosedError after half of the grace",
            "shell/test_service.py::test_a_server_that_is_told_to_end_is_not_held_up_by_results",
        ),
        "one streams events at SIGTERM": (
            "EngineClosedError at once",
            "shell/test_service.py::test_a_server_that_is_told_to_end_is_not_held_up_by_streams",
        ),
    },
    "restoring": {
        "a backup is put beside the WAL of a killed process": (
            "refused untouched, with what to do",
            "shell/test_backups.py::test_a_backup_beside_the_wal_of_a_killed_process_is_refused_untouched",
        ),
        "a WAL of an earlier backup": (
            "refused",
            "shell/test_backups.py::test_a_wal_of_a_backup_that_was_opened_before_is_not_that_of_another",
        ),
        "a WAL whose file is gone": (
            "refused",
            "shell/test_backups.py::test_a_wal_without_its_file_is_not_thrown_away",
        ),
        "durable restore": ("verified; what was there is kept, with its side files", RESTORED),
        "durable restore while an engine runs": (
            "refused",
            "shell/test_backups.py::test_restoring_is_refused_while_the_journal_has_an_owner",
        ),
        "durable restore of what is damaged, or no backup": (
            "replaces nothing",
            "shell/test_backups.py::test_a_backup_that_is_damaged_or_none_replaces_nothing",
        ),
        "durable restore is killed": (
            "a file that opens, or is refused",
            "shell/test_backups.py::test_a_restore_that_is_killed_leaves_a_file_that_opens_or_is_refused",
        ),
        "no hard links for a backup": (
            "made all the same",
            "shell/test_backups.py::test_a_backup_is_made_where_there_are_no_hard_links",
        ),
        "cp of an open file, torn": ("refused untouched, told by doctor", TORN),
        "cp of an open file, whole; a snapshot": (
            "told, opens",
            "shell/test_torn_copies.py::test_a_copy_that_is_whole_is_told_once_and_opens",
        ),
        "the machine is lost, Litestream restores": (
            "all that was acknowledged a second before",
            "test_production.py::test_litestream_restores_what_was_acknowledged_a_second_before",
        ),
        "backup and restore as the guide says": ("work", COMMANDS),
    },
    "threads": {
        "plain steps hang": ("no more threads than given; others run", POOL),
        "the process ends while a plain step hangs": (
            "it ends",
            "shell/test_threads.py::test_a_thread_that_hangs_does_not_keep_the_process_alive",
        ),
        "a plain step outlives its timeout": (
            "why() names it",
            "shell/test_threads.py::test_the_next_attempt_begins_when_the_function_has_really_returned",
        ),
        "so, and somebody asks for stats": (
            "counted",
            "cli/test_stats.py::test_functions_that_outlive_their_attempts_are_told",
        ),
        "the loop's executor and anyio's threads are the application's": (
            "none is taken",
            "shell/test_threads.py::test_no_thread_is_taken_from_the_loop_or_anyio",
        ),
    },
    "loops": {
        "asked on another loop or in a thread": ("refused before anything is recorded", ELSEWHERE),
        "a thread asks by engine.from_thread": (
            "started, waited for, signalled",
            "shell/test_loops.py::test_a_thread_starts_runs_and_waits_for_them",
        ),
        "closed on another loop": ("closes", "shell/test_loops.py::test_closing_from_another_loop_closes"),
        "left because something was cancelled, twice, by an anyio scope or group": ("has closed", LEFT),
        "so, and a step ignores it": (
            "bounded by the grace",
            "shell/test_loops.py::test_closing_under_a_cancelled_scope_is_bounded_by_the_grace",
        ),
        "its loop is gone": (
            "the file is free",
            "shell/test_loops.py::test_an_engine_whose_loop_is_gone_gives_the_file_up_to_whoever_opens_it_next",
        ),
        "it is garbage": (
            "the file is free",
            "shell/test_loops.py::test_an_engine_that_nobody_holds_any_more_gives_the_file_up",
        ),
        "a notebook's cell is run again": (
            "opens again",
            "shell/test_loops.py::test_a_cell_of_a_notebook_may_be_run_again",
        ),
        "opened again after closing": (
            "opens",
            "shell/test_open_close.py::test_an_engine_that_was_closed_can_be_opened_again",
        ),
        "an engine of a module, two TestClients": (
            "serves both",
            "shell/test_loops.py::test_an_engine_of_a_module_serves_two_test_clients",
        ),
    },
    "files and places": {
        "paths with ?, #, %, spaces, unicode, //, over 107 bytes": ("work", PATHS),
        "an empty path, a folder, a pipe, a missing folder": ("the right error first", NO_JOURNAL),
        "another user's file or folder": (
            "told with both users",
            "shell/test_location.py::test_another_users_files_and_folders_are_told_with_both_users",
        ),
        "root asks for something in a service's file": (
            "what it leaves is the service's",
            "shell/test_location.py::test_what_the_superuser_leaves_beside_a_journal_belongs_to_its_owner",
        ),
        "a network file system, a folder shared with a virtual machine": (
            "refused, unless insisted on",
            "shell/test_location.py::test_a_network_file_system_is_refused_unless_it_is_insisted_on",
        ),
        "docker run -v ./app.db:/data/app.db": (
            "refused: mount the folder",
            "shell/test_location.py::test_a_file_that_is_mounted_by_itself_is_refused",
        ),
        "docker run --read-only": ("works; SQLite sorts in memory", PID_1),
        "PID 1 twice": ("the lock is the truth", SAME_NUMBER),
        "a number given again": (
            "the lock is the truth",
            "shell/test_location.py::test_whether_an_owner_is_alive_is_asked_of_the_lock_not_of_its_number",
        ),
        "the host asks an engine in a container": ("it answers, whatever its number there is", PID_1),
        "the application's own user_version, application_id": ("left alone", HEADER),
        "the process's umask": (
            "left alone",
            "shell/test_untrusted_files.py::test_opening_leaves_the_umask_of_the_process_alone",
        ),
        "the owner forks": (
            "its child is told to open its own",
            "shell/test_open_close.py::test_a_forked_child_may_not_use_the_engine",
        ),
        "the owner forks, and is killed": (
            "its children do not listen for it",
            "shell/test_handovers.py::test_forked_children_do_not_listen_for_an_owner_that_was_killed",
        ),
        "so, and somebody wants the file": (
            "the children do not keep it",
            "shell/test_ownership.py::test_a_forked_child_of_a_killed_owner_does_not_keep_the_file",
        ),
        "the owner starts a program": (
            "it does not inherit the lock",
            "shell/test_ownership.py::test_a_program_that_we_start_does_not_inherit_the_lock",
        ),
        "an owner that does not answer": (
            "named, after the timeout",
            "shell/test_handovers.py::test_a_client_says_who_does_not_answer",
        ),
        "an owner that does not listen": (
            "named, after the timeout",
            "shell/test_handovers.py::test_a_client_says_who_does_not_listen",
        ),
    },
    "clocks": {
        "the clock is set back, or forward": ("timers, retries and timeouts wait as long as they say", CLOCK),
        "a retry, by the machine's own clock": (
            "waits no longer",
            "shell/test_clocks.py::test_a_retry_on_the_machines_own_clock_waits_no_longer",
        ),
        "schedules, and the clock is set back": (
            "neither stand still nor tick twice",
            "shell/test_clocks.py::test_schedules_neither_stand_still_nor_tick_twice_when_the_clock_is_set_back",
        ),
        "after a restart": (
            "the wall clock counts; nothing ticks twice",
            "shell/test_clocks.py::test_after_a_restart_the_wall_clock_counts_and_nothing_ticks_twice",
        ),
    },
    "the write-ahead log": {
        "a reader never ends its transaction": ("told in log, health, stats and doctor; recovers", HELD_WAL),
        "readers take turns without end": (
            "waited for; the WAL stays bounded",
            "shell/test_supervision.py::test_readers_that_take_turns_do_not_let_the_wal_grow",
        ),
        "64 MiB and more": ("told by doctor", "cli/test_doctor.py::test_surroundings_are_looked_at"),
    },
    "compiled and odd hosts": {
        "a file, python -m, a zipapp, -OO; -W error -X dev": ("run", HOSTS),
        "uvloop, anyio, debug mode, eager tasks": ("run", LOOPS),
        "every Python from 3.11 on that is at hand": (
            "run",
            "hosts/test_hosts.py::test_a_program_runs_on_other_interpreters_with_eager_tasks",
        ),
        "async generators compiled by Cython": (
            "refused at definition, with the way out",
            "hosts/test_hosts.py::test_an_async_generator_of_cython_is_refused",
        ),
        "coroutine functions compiled by Cython": (
            "run",
            "hosts/test_hosts.py::test_what_cython_compiles_is_refused_or_runs",
        ),
        "Nuitka": ("runs", "hosts/test_hosts.py::test_a_program_that_nuitka_compiled_runs"),
        "PyInstaller": ("runs", "binary/test_single_binary.py::test_killed_while_a_ride_is_paid"),
    },
    "messages": {
        "a backup of that name exists": (
            "choose another name (there is no overwrite=)",
            "shell/test_prune_backup.py::test_a_backup_never_overwrites",
        ),
        "a backup into a folder that is missing": (
            "make it first",
            "shell/test_database.py::test_a_backup_refuses_what_would_spoil_it",
        ),
        "a folder that is missing, a folder in place of a file": ("said, and what to do", NO_JOURNAL),
        "the owner is PID 1 of another container": ("it is not called this process", SAME_NUMBER),
        "Client.open of a file that is being made": (
            "there is no journal in it yet",
            "shell/test_client.py::test_a_client_of_a_file_whose_engine_is_about_to_make_the_journal",
        ),
        "a program ends without closing": (
            "no traceback of ours",
            "shell/test_open_close.py::test_the_process_ends_although_nobody_closed",
        ),
        "an engine stands by": ("says so, and for whom", "shell/test_open_close.py::test_a_standby_takes_over"),
    },
}
ROWS = [
    pytest.param(test, id=f"{about}: {situation}")
    for about, rows in SITUATIONS.items()
    for situation, (_, test) in rows.items()
]


@functools.cache
def names_in(file):
    """
    The functions of a file.
    """
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    return {each.name for each in tree.body if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef))}


@pytest.mark.parametrize("test", ROWS)
def test_each_situation_has_its_test(test):
    """
    A test that is renamed is renamed here as well.
    """
    file, name = test.split("::")
    assert name in names_in(file)
