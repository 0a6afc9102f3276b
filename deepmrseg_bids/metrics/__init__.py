"""Agreement of label maps and of numbers, and statistics of a study."""
