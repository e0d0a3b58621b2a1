"""Export to OpenVINO, and prediction with exported models."""
