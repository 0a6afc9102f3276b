"""The two commands: ``deepmrseg-bids`` (the BIDS-App) and ``deepmrseg`` (the library)."""
