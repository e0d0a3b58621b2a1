"""Kinds of label errors, named by the audit and produced by the simulator."""

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
"""All labels of a scene belong to another image. It is an error of scenes, and not among those of single labels."""
