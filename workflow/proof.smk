# The proof that the method works: the whole chain on several synthetic sets, beside training on the true masks.
#
#     snakemake -s workflow/proof.smk --cores 2 [--config seeds=5 preset=config/presets/proof.yaml]
from pathlib import Path

from cloudcover.lineage import code_fingerprint

SEEDS = range(int(config.get("seeds", 5)))
PRESET = config.get("preset", "config/presets/proof.yaml")
SCRIPTS = sorted(Path(workflow.basedir).glob("scripts/*.py"))


localrules:
    proof,


rule proof:
    input:
        truth=expand("work/proof/seed{seed}/reports/truth.json", seed=SEEDS),
        preset=PRESET,
    output:
        runs="reports/proof/runs.csv",
        seeds="reports/proof/seeds.csv",
        labels="reports/proof/labels.csv",
        plot="reports/proof/proof.png",
    log:
        "logs/proof.log",
    params:
        cfg={},
        code=code_fingerprint(Path(workflow.basedir) / "scripts" / "proof.py"),
    script:
        "scripts/proof.py"


rule chain:
    input:
        PRESET,
    output:
        "work/proof/seed{seed}/reports/truth.json",
    log:
        "logs/proof/seed{seed}.log",
    threads: workflow.cores
    resources:
        gpu=1,
    params:
        folder="work/proof/seed{seed}",
        code=[code_fingerprint(script) for script in SCRIPTS],
    shell:
        "mkdir -p {params.folder}/config && head -n 1 config/verdicts.csv > {params.folder}/config/verdicts.csv"
        " && snakemake --snakefile Snakefile --directory {params.folder} --configfile {input}"
        " --config seed={wildcards.seed} --cores {threads} --resources gpu=1 --quiet rules host"
        " -- reports/truth.json 2>&1 | tee {log}"
