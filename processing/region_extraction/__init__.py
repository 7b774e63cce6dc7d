"""Extract regions from raw images, with detectors, grids of patches or given boxes."""
