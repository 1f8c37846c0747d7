"""What it means: metrics, intervals, figures and the report."""
