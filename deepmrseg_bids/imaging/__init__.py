"""Images: grids, NIfTI, label tables, intensities, registration, templates."""
