"""Weights of the evidence, fitted on synthetic sets only. Written by `benchmarks/audit.py --fit`."""

PRIOR = 0.083
"""Share of wrong labels in the sets that the weights were fitted on."""
INTERCEPT = -6.80
WEIGHTS = {
    "empty_over_cloud": 2.02,
    "inverted": 0.00,
    "swapped": 1.49,
    "shifted": 0.00,
    "coarse": 0.00,
    "artefact": 0.00,
    "stripes": 2.68,
    "false_cloud": 1.25,
    "missed_cloud": 0.06,
    "disagreement": 0.92,
    "contradicted": 3.00,
    "doubted": 0.67,
    "low_iou": 0.72,
    "low_confidence": 1.29,
    "low_neighbour_iou": 0.91,
    "learned_late": 3.16,
    "inseparable": 2.88,
    "separable": -0.15,
    "odd_colours": 0.00,
    "doubtful": -0.60,
    "scene_residual": 0.57,
    "scene_against": 1.14,
}
"""Log-odds per unit of each column of `score.relative`."""
