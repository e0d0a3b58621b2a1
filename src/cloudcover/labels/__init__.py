"""Trust in labels: the audit, human verdicts, and the manifest that combines them."""
