"""HTML reports: pictures and pages that open without a network."""
