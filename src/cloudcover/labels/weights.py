"""Weights of the evidence, fitted on synthetic sets only. Written by `benchmarks/audit.py --fit`."""

PRIOR = 0.149
"""Share of wrong labels in the sets that the weights were fitted on."""
INTERCEPT = -5.51
WEIGHTS = {
    "empty_over_cloud": 2.31,
    "inverted": 0.00,
    "swapped": 1.70,
    "shifted": 0.00,
    "coarse": 0.00,
    "artefact": 0.00,
    "stripes": 2.72,
    "false_cloud": 1.50,
    "missed_cloud": 0.46,
    "disagreement": 0.70,
    "contradicted": 2.41,
    "doubted": 0.59,
    "low_iou": 0.83,
    "low_confidence": 0.60,
    "low_neighbour_iou": 0.62,
    "learned_late": 3.02,
    "inseparable": 2.57,
    "separable": -0.45,
    "odd_colours": 0.03,
    "doubtful": -0.70,
    "scene_residual": 0.00,
    "scene_against": 0.63,
}
"""Log-odds per unit of each column of `score.relative`."""
