"""What a run does: one file for each task. A task is a settings class and a build function that returns a `Run`."""
