"""Writers of the small world's sets, one file each, in the layouts that the loaders read."""
