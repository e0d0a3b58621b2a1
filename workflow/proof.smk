# Experiments on synthetic sets with known true masks: the whole workflow with a preset of config/presets/, several times
# per set, each with another training seed (training.seed).
#
#     snakemake -s workflow/proof.smk --cores 2 proof [--config ...]        what the method recovers
#     snakemake -s workflow/proof.smk --cores 2 ablation [--config ...]     what its parts contribute
#
# --config: proof=NAME and ablation=NAME another preset; seeds=5 first=0 the sets; trainings=3 of each; threads=3 gpu=2
# what one chain gets of --cores and --resources gpu=..., all cores and one GPU unless given: several chains then run side
# by side.
from pathlib import Path

from cloudcover.pipeline.code_fingerprint import code_fingerprint


include: "rules/lock.smk"


SCRIPTS = sorted(Path(workflow.basedir).glob("scripts/*.py"))
PROOF = config.get("proof", "proof")
ABLATION = config.get("ablation", "ablation")


def chains(preset, seeds, trainings):
    """List the results of a preset's runs, beginning with the first training of every set."""
    first = int(config.get("first", 0))
    return [
        f"work/{preset}/seed{seed}/training{training}/reports/truth.json"
        for training in range(int(config.get("trainings", trainings)))
        for seed in range(first, first + int(config.get("seeds", seeds)))
    ]


def code(script):
    """Compute the fingerprint of a script and its imports."""
    return code_fingerprint(Path(workflow.basedir) / "scripts" / script)


localrules:
    proof,
    ablation,


rule proof:
    input:
        truth=chains(PROOF, 5, 3),
        preset=f"config/presets/{PROOF}.yaml",
    output:
        runs=f"reports/{PROOF}/runs.csv",
        steps=f"reports/{PROOF}/steps.csv",
        chains=f"reports/{PROOF}/chains.csv",
        labels=f"reports/{PROOF}/labels.csv",
        plot=f"reports/{PROOF}/proof.png",
    log:
        f"logs/{PROOF}.log",
    params:
        cfg={},
        code=code("proof.py"),
    script:
        "scripts/proof.py"


rule ablation:
    input:
        truth=chains(ABLATION, 3, 1),
        preset=f"config/presets/{ABLATION}.yaml",
    output:
        members=f"reports/{ABLATION}/members.csv",
        tta=f"reports/{ABLATION}/tta.csv",
        plot=f"reports/{ABLATION}/ablation.png",
    log:
        f"logs/{ABLATION}.log",
    params:
        cfg={},
        code=code("ablation.py"),
    script:
        "scripts/ablation.py"


rule chain:
    input:
        "config/presets/{preset}.yaml",
    output:
        "work/{preset}/seed{seed}/training{training}/reports/truth.json",
    log:
        "logs/{preset}/seed{seed}-training{training}.log",
    threads: int(config.get("threads", workflow.cores))
    resources:
        gpu=int(config.get("gpu", 1)),
    params:
        folder="work/{preset}/seed{seed}/training{training}",
        code=[code_fingerprint(script) for script in SCRIPTS],
    shell:
        "mkdir -p {params.folder}/config && head -n 1 config/verdicts.csv > {params.folder}/config/verdicts.csv"
        " && cloudcover params {input} > {params.folder}/params.yaml"
        " && snakemake --snakefile Snakefile --directory {params.folder}"
        " --config seed={wildcards.seed} training='{{seed: {wildcards.training}}}' --cores {threads} --resources gpu={resources.gpu} --quiet rules host"
        " -- reports/truth.json 2>&1 | tee {log}"
