"""One session: scans in, outcome out."""
