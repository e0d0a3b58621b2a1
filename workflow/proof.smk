# Experiments on synthetic sets, whose truth is known: the whole chain by a preset of config/presets/, once per set.
#
#     snakemake -s workflow/proof.smk --cores 2 proof [--config seeds=5 first=0]        what the method wins back
#     snakemake -s workflow/proof.smk --cores 2 ablation [--config seeds=1 first=0]     what its parts bring
from pathlib import Path

from cloudcover.lineage import code_fingerprint

SCRIPTS = sorted(Path(workflow.basedir).glob("scripts/*.py"))


def chains(preset, seeds):
    """The results of a preset's chains."""
    first = int(config.get("first", 0))
    return expand(
        "work/{preset}/seed{seed}/reports/truth.json",
        preset=preset,
        seed=range(first, first + int(config.get("seeds", seeds))),
    )


def code(script):
    """Fingerprint of a script and what it imports."""
    return code_fingerprint(Path(workflow.basedir) / "scripts" / script)


localrules:
    proof,
    ablation,


rule proof:
    input:
        truth=chains("proof", 5),
        preset="config/presets/proof.yaml",
    output:
        runs="reports/proof/runs.csv",
        seeds="reports/proof/seeds.csv",
        labels="reports/proof/labels.csv",
        plot="reports/proof/proof.png",
    log:
        "logs/proof.log",
    params:
        cfg={},
        code=code("proof.py"),
    script:
        "scripts/proof.py"


rule ablation:
    input:
        truth=chains("ablation", 1),
        preset="config/presets/ablation.yaml",
    output:
        members="reports/ablation/members.csv",
        tta="reports/ablation/tta.csv",
        plot="reports/ablation/ablation.png",
    log:
        "logs/ablation.log",
    params:
        cfg={},
        code=code("ablation.py"),
    script:
        "scripts/ablation.py"


rule chain:
    input:
        "config/presets/{preset}.yaml",
    output:
        "work/{preset}/seed{seed}/reports/truth.json",
    log:
        "logs/{preset}/seed{seed}.log",
    threads: workflow.cores
    resources:
        gpu=1,
    params:
        folder="work/{preset}/seed{seed}",
        code=[code_fingerprint(script) for script in SCRIPTS],
    shell:
        "mkdir -p {params.folder}/config && head -n 1 config/verdicts.csv > {params.folder}/config/verdicts.csv"
        " && snakemake --snakefile Snakefile --directory {params.folder} --configfile {input}"
        " --config seed={wildcards.seed} --cores {threads} --resources gpu=1 --quiet rules host"
        " -- reports/truth.json 2>&1 | tee {log}"
