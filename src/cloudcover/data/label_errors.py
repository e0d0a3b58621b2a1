"""The kinds of error that labels have: the audit names them, and the simulator makes them."""

LABEL_ERRORS = (
    "empty_over_cloud",
    "inverted",
    "swapped",
    "shifted",
    "coarse",
    "artefact",
    "stripes",
    "false_cloud",
    "missed_cloud",
)
