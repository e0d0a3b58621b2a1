"""The review page: a local web page on which a person judges labels quickly, the most suspicious first."""
