"""Random changes of training batches, and the symmetries that test-time augmentation shares with them."""
