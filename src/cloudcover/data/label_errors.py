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
SCENE_FAILED = "scene_failed"
"""All labels of a scene belong to another image. An error of scenes, so it is not among those of single labels."""
