"""BIDS: names, the query of BIDS_DIR, and what OUT_DIR holds."""
