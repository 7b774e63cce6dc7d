"""Generated scenes of shapes: pictures, regions, texts and tasks with computed truth."""
