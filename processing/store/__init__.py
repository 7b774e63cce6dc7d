"""The region store: its format, writing, reading, merging, validation and repair."""
