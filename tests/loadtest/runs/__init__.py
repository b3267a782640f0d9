"""Run folders with known contents, generated on demand."""
