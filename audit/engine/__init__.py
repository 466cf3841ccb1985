"""Running a plan: cells, run directories, and what is asked of them."""
