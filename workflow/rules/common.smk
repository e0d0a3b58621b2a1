import shutil
from pathlib import Path

from snakemake.exceptions import WorkflowError

from cloudcover.config import runs
from cloudcover.config.params import ParamsError, pick, refuse_duplicate_keys, validate
from cloudcover.config.training import TrainingConfig
from cloudcover.pipeline import paths
from cloudcover.pipeline.code_fingerprint import code_fingerprint

try:
    if Path("params.yaml").exists():
        refuse_duplicate_keys("params.yaml")
    PARAMS = validate(config, "params.yaml")
except ParamsError as error:
    raise WorkflowError(str(error)) from None

FOLDS = list(range(PARAMS.folds.number))
ROUNDS = list(PARAMS.rounds)
REFERENCES = PARAMS.evaluation.references
FINAL_RUNS = [runs.final_run(member) for member in sorted(PARAMS.final.members)]
RUNS = [runs.BASELINE, *ROUNDS, *REFERENCES, *FINAL_RUNS]
PSEUDO_ARRAY = paths.PSEUDO_ARRAYS[PARAMS.pseudo_labels.targets]
# TTA policies of held-out predictions: of the folds (oof), which judge labels and calibrate the final models, and of the
# test part, which all figures are measured on.
OOF_POLICIES = list(dict.fromkeys([PARAMS.prediction.tta, PARAMS.prediction.judge_tta]))
FINAL_POLICIES = PARAMS.prediction.final_tta


wildcard_constraints:
    run=runs.RUN,
    round=runs.ROUND,
    fold=r"\d+",


def sections(*names):
    """Select sections and single keys of the parameters for the `params` of a rule; only these make the rule stale."""
    return pick(PARAMS, names)


def training_sections(wildcards):
    """Select the parameters of a training; only the final runs depend on `final`."""
    return sections(
        *TrainingConfig.KEYS, *(["final"] if runs.member_of(wildcards.run) else [])
    )


def code(script):
    """Compute the fingerprint of a script and its library modules, because Snakemake itself checks only the script."""
    return code_fingerprint(Path(workflow.basedir) / "workflow" / "scripts" / script)


def gpus():
    """Return the GPUs of a network job. Without a GPU, such jobs share the cores instead of waiting for each other.

    `cuda` asks for one even where there is none: the machine that submits jobs to a cluster often has no GPU.
    """
    here = shutil.which("nvidia-smi") is not None
    return int({"auto": here, "cpu": False, "cuda": True}[PARAMS.compute.device])


def cores():
    """Return the cores of a run on this machine; 1 on a cluster, whose profile sets the threads of rules that use more."""
    return workflow.resource_settings.cores or 1


# Memory and time that the rules request from a cluster; a run on one machine ignores them. They are meant for 11,748
# chips of 512 pixels and a recent GPU. Time is at least ten times the estimate of docs/scaling.md: requesting too much
# costs a short wait, but a job that is cut off starts again. Memory is at least twice the sum of the demo's peak (0.1 to
# 0.2 GB without a network, 0.6 to 0.8 GB with one) and, on a GPU, 3 GB for CUDA and three batches of 32 chips (0.3 GB).
def grows(first):
    """Return a resource that is doubled in the second attempt."""
    return lambda wildcards, attempt: first * attempt


def labels_of_round(name):
    """List the files of the labels after a round: the table, and the array of pseudo-labels."""
    return [paths.labels(name), f"data/labels/{name}/{PSEUDO_ARRAY}"]


def labels_of(name):
    """List the files of the labels to learn from: the manifest, or the labels after a round."""
    return [paths.labels(name)] if name == runs.MANIFEST else labels_of_round(name)


def labels_for(wildcards):
    """List the files of the labels that a run learns from; none for runs that learn from all given labels.

    The baseline and the references do not depend on any verdict.
    """
    if runs.member_of(wildcards.run):
        return labels_of(PARAMS.final.labels)
    if runs.is_round(wildcards.run):
        return labels_of(PARAMS.rounds[wildcards.run])
    return []


def first_audit(wildcards):
    """Return the baseline's judgement, which is averaged with that of a round."""
    return [] if wildcards.run == runs.BASELINE else f"data/audit/{runs.BASELINE}.csv"


def truth_for(wildcards):
    """Return the true masks for the run that learns from them."""
    return "data/truth/masks.csv" if wildcards.run == runs.ORACLE else []


def audit_by(run):
    """Return the audit by a run's predictions, if the policy uses the audit."""
    return [] if PARAMS.labels.policy == "human" else f"data/audit/{run}.csv"


def weights(names):
    """List the weights of all models of some runs."""
    return [file for run in names for file in paths.weights(run, FOLDS)]


def round_tables():
    """List the tables of labels after each round."""
    return [paths.labels(name) for name in ROUNDS]


def round_arrays():
    """List the pseudo-labels that belong to these tables."""
    return [f"data/labels/{name}/{PSEUDO_ARRAY}" for name in ROUNDS]


def predictions(part, names):
    """List the held-out predictions of some runs: the index of rows and chips, and the arrays by TTA policy."""
    return [
        f"data/{part}/{run}/{file}"
        for run in names
        for file in [
            "index.csv",
            *[f"{policy}.npy" for policy in policies_of(part, run)],
        ]
    ]


def policies_of(part, run):
    """Return the TTA policies of a run's predictions of a part."""
    if runs.member_of(run):
        return FINAL_POLICIES if part == "test" else [PARAMS.prediction.tta]
    return OOF_POLICIES if part == "oof" else [PARAMS.prediction.tta]


def intermediate():
    """List the intermediate files, because Snakemake notices a deleted file only if it is a target."""
    judges = [] if PARAMS.labels.policy == "human" else [runs.BASELINE, *ROUNDS]
    return [
        "data/raw/files.csv",
        "data/store/index.parquet",
        "data/quarantine.csv",
        "data/folds.csv",
        *expand("data/audit/{run}.csv", run=judges),
        "data/labels/manifest.csv",
        *weights(RUNS),
        *expand("reports/learning_curves/{run}/fold{fold}.csv", run=RUNS, fold=FOLDS),
        *[file for name in ROUNDS for file in labels_of_round(name)],
        *predictions("oof", RUNS),
        *predictions("test", RUNS),
        "data/test/final/index.csv",
        "data/test/final/masks.npy",
        "models/calibration.json",
        "reports/learning_curves.csv",
        "reports/tables/chips.csv",
    ]


def targets():
    """List all results of a complete run."""
    return [
        *intermediate(),
        "reports/index.html",
        "reports/metrics.json",
        "reports/truth.json",
        "models/bundle/bundle.json",
        "data/predictions/masks.csv",
    ]
