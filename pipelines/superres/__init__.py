"""Super-resolution: from photographs to larger ones, with figures and a report."""
