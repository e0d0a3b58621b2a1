"""Weights of the evidence, fitted on synthetic sets only. Written by `benchmarks/audit.py --fit`."""

PRIOR = 0.145
"""Share of wrong labels in the sets that the weights were fitted on."""
INTERCEPT = -5.36
WEIGHTS = {
    "empty_over_cloud": 2.11,
    "inverted": 0.00,
    "swapped": 1.39,
    "shifted": 0.00,
    "coarse": 0.00,
    "artefact": 0.00,
    "stripes": 2.71,
    "false_cloud": 0.88,
    "missed_cloud": 0.00,
    "disagreement": 0.95,
    "contradicted": 2.75,
    "doubted": 0.74,
    "low_iou": 0.76,
    "low_confidence": 1.40,
    "low_neighbour_iou": 1.22,
    "learned_late": 3.29,
    "inseparable": 3.22,
    "separable": -0.02,
    "odd_colours": 0.00,
    "doubtful": -0.56,
}
"""Log-odds per unit of each column of `score.features`."""
