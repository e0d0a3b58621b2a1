import shutil
from pathlib import Path

from snakemake.exceptions import WorkflowError

from cloudcover.config import runs
from cloudcover.config.params import ParamsError, refuse_duplicate_keys, validate
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
POLICIES = PARAMS.evaluation.tta
# by more policies the final runs are compared
FINAL_POLICIES = PARAMS.evaluation.final_tta


wildcard_constraints:
    run=runs.RUN,
    round=runs.ROUND,
    fold=r"\d+",


def sections(*names):
    """Sections of the parameters with their defaults, for the `params` of rules; exactly these make a rule stale."""
    values = PARAMS.model_dump(mode="json")
    return {name: values[name] for name in names}


def training_sections(wildcards):
    """The sections that a training depends on; only the final runs depend on `final`."""
    return sections(
        *TrainingConfig.SECTIONS, *(["final"] if runs.member_of(wildcards.run) else [])
    )


def code(script):
    """Fingerprint of a script and of every library module that it imports: Snakemake itself sees only the script."""
    return code_fingerprint(Path(workflow.basedir) / "workflow" / "scripts" / script)


def gpus():
    """GPUs that a job of a network takes. Without a GPU such jobs share the cores instead of waiting for each other.

    `cuda` asks for one even where there is none: the machine that submits jobs to a cluster often has no GPU.
    """
    here = shutil.which("nvidia-smi") is not None
    return int({"auto": here, "cpu": False, "cuda": True}[PARAMS.compute.device])


def cores():
    """Cores of this machine's run; 1 on a cluster, whose profile sets the threads of the rules that gain from more."""
    return workflow.resource_settings.cores or 1


def training_threads():
    """Threads of one training on the CPU: the folds of a round run side by side."""
    return max(1, cores() // len(FOLDS))


# Memory and time that the rules ask a cluster for; a run on one machine ignores them. They are for 11,748 chips of 512
# pixels and one GPU of the last years. Time is what docs/scaling.md derives from measured rates, ten times and more:
# who asks for too much waits a little, who is cut off starts again. Memory is what the demo's jobs held at their peak
# (0.1 to 0.2 GB without a network, 0.6 to 0.8 GB with one, 1.6 GB in the audit), and for 512 pixels on a GPU about
# 3 GB for CUDA and three batches of 32 chips (0.3 GB), doubled or more.
def grows(first):
    """A resource: so much in the first attempt, twice as much in the second."""
    return lambda wildcards, attempt: first * attempt


def pseudo_files(name):
    """The pseudo-labels that a round has left, table and array; none for the manifest."""
    table = paths.pseudo_labels(name)
    return [table, f"data/labels/{name}/{PSEUDO_ARRAY}"] if table else []


def pseudo_labels_for(wildcards):
    """The pseudo-labels that a run learns from: those of the round that the parameters name."""
    if runs.member_of(wildcards.run):
        return pseudo_files(PARAMS.final.labels)
    return pseudo_files(PARAMS.rounds.get(wildcards.run, runs.MANIFEST))


def previous_pseudo_labels(wildcards):
    """The pseudo-labels of the round before, to tell what changed."""
    return pseudo_files(PARAMS.rounds[wildcards.round])


def truth_for(wildcards):
    """The true masks, for the run that learns from them."""
    return "data/truth/masks.csv" if wildcards.run == runs.ORACLE else []


def audit_for_manifest(wildcards):
    """The audit, where the policy asks it."""
    return [] if PARAMS.labels.policy == "human" else "data/labels/audit.csv"


def weights(names):
    """The weights of all models of some runs."""
    return [file for run in names for file in paths.weights(run, FOLDS)]


def pseudo_tables():
    """The table of pseudo-labels of each round."""
    return [paths.pseudo_labels(name) for name in ROUNDS]


def pseudo_arrays():
    """The masks or probabilities beside each of these tables."""
    return [f"data/labels/{name}/{PSEUDO_ARRAY}" for name in ROUNDS]


def oof_tables(names):
    """Which row of an array of out-of-fold probabilities is which chip, for each of some runs."""
    return expand("data/oof/{run}/index.csv", run=names)


def oof_arrays(names):
    """The out-of-fold probabilities of some runs, by all policies that they are predicted with."""
    return [
        f"data/oof/{run}/{policy}.npy"
        for run in names
        for policy in (FINAL_POLICIES if runs.member_of(run) else POLICIES)
    ]


def intermediate():
    """What the targets are made from. Snakemake misses a deleted file only if a target asks for it."""
    return [
        "data/raw/files.csv",
        "data/store/index.parquet",
        "data/quarantine.csv",
        *([audit] if (audit := audit_for_manifest(None)) else []),
        "data/labels/manifest.csv",
        "data/folds.csv",
        *weights(RUNS),
        *expand("reports/learning_curves/{run}/fold{fold}.csv", run=RUNS, fold=FOLDS),
        *[file for name in ROUNDS for file in pseudo_files(name)],
        *oof_tables(RUNS),
        *oof_arrays(RUNS),
        "models/calibration.json",
        "reports/learning_curves.csv",
        "reports/tables/chips.csv",
    ]


def targets():
    """Everything that a complete run leaves behind."""
    return [
        *intermediate(),
        "reports/index.html",
        "reports/metrics.json",
        "reports/truth.json",
        "models/bundle/bundle.json",
        "data/predictions/masks.csv",
    ]
