"""
What happens to an engine in production, what it does then, and which test shows it: one table, kept complete.
"""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

SITUATIONS = {
    # the engine and what it needs
    "file, WAL, lock or folder is deleted or replaced": (
        "fails loudly: body, waiters, watchers, one critical line",
        "shell/test_supervision.py::test_what_is_lost_fails_the_engine_loudly",
    ),
    "the engine failed, its process lives on": (
        "the lock is free, a standby takes over",
        "shell/test_supervision.py::test_a_failed_engine_gives_its_file_to_a_standby",
    ),
    "a backup tool makes a hard link": (
        "degraded, and over when that is gone",
        "shell/test_supervision.py::test_a_second_name_of_the_file_is_told_and_passes",
    ),
    "the folder is away for a while": (
        "degraded; what is recorded meanwhile is in the file",
        "shell/test_supervision.py::test_a_folder_that_is_away_for_a_while_is_waited_for",
    ),
    "no thread or descriptor for a second": (
        "waited out",
        "shell/test_supervision.py::test_a_moment_without_threads_or_descriptors_passes",
    ),
    "a probe asks": (
        "healthy, degraded and why, failed, closed",
        "shell/test_supervision.py::test_health_says_what_a_probe_needs",
    ),
    "readers take turns without end": (
        "waited for; the WAL stays bounded",
        "shell/test_supervision.py::test_readers_that_take_turns_do_not_let_the_wal_grow",
    ),
    "a reader never ends its transaction": (
        "told in log, health, stats and doctor; recovers",
        "shell/test_supervision.py::test_a_wal_that_another_program_holds_is_told_and_recovers",
    ),
    "plain steps hang": (
        "no more threads than given; others run",
        "shell/test_threads.py::test_a_pool_has_no_more_threads_than_it_may_whatever_hangs",
    ),
    "the process ends while a plain step hangs": (
        "it ends",
        "shell/test_threads.py::test_a_thread_that_hangs_does_not_keep_the_process_alive",
    ),
    "the clock is set back": (
        "timers, retries and schedules go on",
        "shell/test_clocks.py::test_what_waits_a_second_waits_a_second_however_the_clock_is_set",
    ),
    # deploys
    "SIGTERM or Ctrl-C": (
        "serve() drains and returns",
        "shell/test_serving.py::test_a_signal_drains_the_engine",
    ),
    "docker stop, where the program is PID 1": (
        "serve() drains and returns",
        "test_production.py::test_as_pid_1_it_ends_by_sigterm",
    ),
    "three deploys during one long step": (
        "it is no poison",
        "shell/test_serving.py::test_deploys_during_a_long_step_are_no_crashes_of_it",
    ),
    "several workers": ("each is asked, one executes", "shell/test_service.py::test_each_is_asked_and_one_executes"),
    "uvicorn or gunicorn with workers: kill, HUP, a second server": (
        "nothing lost or doubled",
        "examples/test_service.py::test_nothing_is_lost_or_doubled_however_the_workers_end",
    ),
    "gunicorn USR2": ("the new master's workers continue", "test_production.py::test_gunicorn_is_replaced_by_usr2"),
    "uvicorn --reload": ("the new code continues", "test_production.py::test_uvicorn_reloads"),
    "a rolling update on one volume": (
        "the new pod is ready before its turn",
        "shell/test_service.py::test_opening_does_not_wait_for_the_turn_to_execute",
    ),
    "a request handler waits for a result at SIGTERM": (
        "EngineClosedError after half of the grace",
        "shell/test_service.py::test_a_server_that_is_told_to_end_is_not_held_up_by_results",
    ),
    "a second engine opens the file": (
        "refused, naming Service and Client",
        "shell/test_service.py::test_an_engine_that_finds_the_file_taken_names_what_several_processes_use",
    ),
    # copies of the file
    "a backup is put beside the WAL of a killed process": (
        "refused untouched",
        "shell/test_backups.py::test_a_backup_beside_the_wal_of_a_killed_process_is_refused_untouched",
    ),
    "durable restore": (
        "verified; what was there is kept",
        "shell/test_backups.py::test_restoring_sets_aside_what_was_there_with_its_wal",
    ),
    "durable restore while an engine runs": (
        "refused",
        "shell/test_backups.py::test_restoring_is_refused_while_the_journal_has_an_owner",
    ),
    "durable restore is killed": (
        "a file that opens, or is refused",
        "shell/test_backups.py::test_a_restore_that_is_killed_leaves_a_file_that_opens_or_is_refused",
    ),
    "no hard links for a backup": (
        "made all the same",
        "shell/test_backups.py::test_a_backup_is_made_where_there_are_no_hard_links",
    ),
    "cp of an open file, torn": (
        "refused untouched, told by doctor",
        "shell/test_torn_copies.py::test_a_torn_copy_is_refused_untouched_and_told_by_doctor",
    ),
    "cp of an open file, whole; a snapshot": (
        "told, opens",
        "shell/test_torn_copies.py::test_a_copy_that_is_whole_is_told_once_and_opens",
    ),
    "the machine is lost, Litestream restores": (
        "all that was acknowledged a second before",
        "test_production.py::test_litestream_restores_what_was_acknowledged_a_second_before",
    ),
    # loops
    "asked on another loop or in a thread": (
        "refused before anything is recorded",
        "shell/test_loops.py::test_what_is_asked_on_another_loop_is_refused_before_anything_is_recorded",
    ),
    "closed on another loop": ("closes", "shell/test_loops.py::test_closing_from_another_loop_closes"),
    "left because something was cancelled, twice": (
        "has closed",
        "shell/test_loops.py::test_an_engine_that_is_left_because_something_was_cancelled_has_closed",
    ),
    "its loop is gone": (
        "the file is free",
        "shell/test_loops.py::test_an_engine_whose_loop_is_gone_gives_the_file_up_to_whoever_opens_it_next",
    ),
    "a notebook's cell is run again": (
        "opens again",
        "shell/test_loops.py::test_a_cell_of_a_notebook_may_be_run_again",
    ),
    "an engine of a module, two TestClients": (
        "serves both",
        "shell/test_loops.py::test_an_engine_of_a_module_serves_two_test_clients",
    ),
    # files and places
    "paths with ?, #, %, spaces, //, over 107 bytes": (
        "work",
        "shell/test_location.py::test_every_path_works_for_engine_client_and_command_line",
    ),
    "an empty path, a folder, a pipe, a missing folder": (
        "the right error first",
        "shell/test_location.py::test_what_cannot_be_a_journal_is_told_first",
    ),
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
    "PID 1 twice, a number given again": (
        "the lock is the truth",
        "shell/test_location.py::test_a_process_of_our_number_in_another_container_is_not_taken_for_us",
    ),
    "the application's own user_version": (
        "left alone",
        "shell/test_open_close.py::test_the_header_of_a_file_is_the_applications",
    ),
    "the process's umask": (
        "left alone",
        "shell/test_untrusted_files.py::test_opening_leaves_the_umask_of_the_process_alone",
    ),
    "the owner forks, and is killed": (
        "its children do not listen for it",
        "shell/test_handovers.py::test_forked_children_do_not_listen_for_an_owner_that_was_killed",
    ),
    "an owner that does not answer": (
        "named, after the timeout",
        "shell/test_handovers.py::test_a_client_says_who_does_not_answer",
    ),
    # hosts
    "a file, python -m, a zipapp, -OO; -W error -X dev": (
        "run",
        "hosts/test_hosts.py::test_a_program_runs_in_every_form",
    ),
    "uvloop, anyio, debug mode, eager tasks": ("run", "hosts/test_hosts.py::test_a_program_runs_on_every_event_loop"),
    "every Python from 3.11 on that is at hand": (
        "run",
        "hosts/test_hosts.py::test_a_program_runs_on_other_interpreters_with_eager_tasks",
    ),
    "async generators compiled by Cython": (
        "refused at definition",
        "hosts/test_hosts.py::test_an_async_generator_of_cython_is_refused",
    ),
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_each_situation_has_its_test(situation):
    """
    A test that is renamed is renamed here as well.
    """
    _, test = SITUATIONS[situation]
    file, name = test.split("::")
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    assert name in {each.name for each in tree.body if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef))}
