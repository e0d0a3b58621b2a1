import shutil
from pathlib import Path

from snakemake.exceptions import WorkflowError

from cloudcover.pipeline.code_fingerprint import code_fingerprint
from cloudcover.config.params import ParamsError, validate

try:
    PARAMS = validate(config, "params.yaml")
except ParamsError as error:
    raise WorkflowError(str(error)) from None

FOLDS = list(range(PARAMS.folds.number))
ROUNDS = list(range(1, PARAMS.pseudo_labels.rounds + 1))
MEMBERS = sorted(PARAMS.final.members)
FINAL_RUNS = [f"final/{member}" for member in MEMBERS]
KNOWN = PARAMS.data.source == "synthetic"  # its true masks are known
ORACLE = ["oracle"] if PARAMS.evaluation.oracle and KNOWN else []
RUNS = ["baseline", *[f"round{number}" for number in ROUNDS], *ORACLE, *FINAL_RUNS]


wildcard_constraints:
    run=r"baseline|oracle|round\d+|final/\w+",
    round=r"\d+",
    fold=r"\d+",


def sections(*names):
    """Sections of the parameters with their defaults, for the `params` of rules; exactly these make a rule stale."""
    values = PARAMS.model_dump(mode="json")
    return {name: values[name] for name in names}


def training_sections(wildcards):
    """The sections that a training depends on; only the final runs depend on `final`."""
    final = ["final"] if wildcards.run.startswith("final/") else []
    return sections(
        "seed",
        "data",
        "folds",
        "input",
        "model",
        "training",
        "augmentation",
        "compute",
        *final,
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


def model_files(run, folds=FOLDS):
    """The weight files of a run."""
    return expand("models/{run}/fold{fold}/model.safetensors", run=run, fold=folds)


def pseudo_labels_for(wildcards):
    """The pseudo-labels that a run learns from: those of the round before, if there is one."""
    if wildcards.run in ("baseline", "oracle", "round1"):
        return []
    number = (
        ROUNDS[-1]
        if wildcards.run.startswith("final/")
        else int(wildcards.run.removeprefix("round")) - 1
    )
    return f"data/labels/round{number}/pseudo_labels.csv"


def truth_for(wildcards):
    """The true masks, for the run that learns from them."""
    return "data/truth/masks.csv" if wildcards.run == "oracle" else []


def previous_pseudo_labels(wildcards):
    """The pseudo-labels of the round before, to tell what changed."""
    number = int(wildcards.round) - 1
    return f"data/labels/round{number}/pseudo_labels.csv" if number else []


def audit_for_manifest(wildcards):
    """The audit, where the policy asks it."""
    return [] if PARAMS.labels.policy == "human" else "data/labels/audit.csv"


def source_index(wildcards):
    """What the download depends on: the tables of a local folder, and further chips; the rest follows from parameters."""
    data = PARAMS.data
    further = [data.unlabelled] if data.unlabelled else []
    if data.source != "local":
        return further
    test = Path(data.path, "test_metadata.csv")
    return [
        f"{data.path}/train_metadata.csv",
        *([str(test)] if test.exists() else []),
        *further,
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
        *model_files(RUNS),
        *expand("models/{run}/fold{fold}/history.csv", run=RUNS, fold=FOLDS),
        *expand("data/labels/round{round}/pseudo_labels.csv", round=ROUNDS),
        *expand("data/oof/{run}/index.csv", run=RUNS),
        "models/choice.json",
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
