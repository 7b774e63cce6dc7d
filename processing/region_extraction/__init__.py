"""From raw images to regions: detectors, grids of patches, given boxes, and the images that they read."""
