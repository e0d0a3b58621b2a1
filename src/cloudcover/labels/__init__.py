"""Which labels to trust: the audit, human verdicts, and the manifest that decides."""
