"""The parameters of a run, and the files rendered from them."""
