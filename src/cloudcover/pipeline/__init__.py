"""The workflow's own side: jobs, fingerprints of code, and the DVC cache."""
