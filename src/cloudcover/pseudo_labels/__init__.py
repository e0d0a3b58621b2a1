"""New labels for chips whose label was rejected or that have none."""
