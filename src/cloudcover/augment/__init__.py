"""Random augmentation of training batches, and the symmetries shared with test-time augmentation."""
