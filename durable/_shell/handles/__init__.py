"""What callers hold: runs, batches, schedules; and the client, which asks from another process."""
