"""Support for the workflow: jobs, code fingerprints, and the DVC cache."""
