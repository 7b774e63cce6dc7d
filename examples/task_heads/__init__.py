"""Every head on its generated task."""
