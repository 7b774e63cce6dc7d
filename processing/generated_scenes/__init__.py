"""Generated scenes of shapes: images, regions, texts and tasks with computed labels."""
