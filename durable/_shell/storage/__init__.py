"""The file: its connections and threads, its owner, its tables. Knows nothing of runs."""
