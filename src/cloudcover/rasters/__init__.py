"""Images from what people have: products, scenes, rasters and arrays in, bands as digital numbers out. No torch."""
