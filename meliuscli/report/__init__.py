"""Values to text: tables in five formats, plots, and the report of a study. No torch."""
