"""Weights of the evidence, fitted on synthetic sets only. Written by `benchmarks/audit.py --fit`."""

PRIOR = 0.145
"""Share of wrong labels in the sets that the weights were fitted on."""
INTERCEPT = -5.23
WEIGHTS = {
    "empty_over_cloud": 0.84,
    "inverted": 0.2,
    "swapped": 0.94,
    "shifted": 0.23,
    "coarse": 0.2,
    "artefact": 0.3,
    "stripes": 1.69,
    "false_cloud": 1.22,
    "missed_cloud": 0.2,
    "disagreement": 0.57,
    "contradicted": 2.0,
    "doubted": 1.03,
    "low_iou": 1.11,
    "low_confidence": 2.0,
    "low_neighbour_iou": 1.9,
    "learned_late": 1.85,
    "inseparable": 2.0,
    "separable": -0.93,
    "odd_colours": 0.2,
    "doubtful": -2.0,
}
"""Log-odds per unit of each column of `score.features`."""
