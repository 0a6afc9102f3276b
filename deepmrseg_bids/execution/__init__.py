"""Worker processes, nipype plugins, progress, signals, predicted costs."""
