"""How anything trains: the loop and what it stands on. Knows no task and has never heard of masks."""
