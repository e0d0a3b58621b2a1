rule evidence:
    input:
        index="data/store/index.parquet",
        folds="data/folds.csv",
    output:
        evidence="data/evidence/evidence.parquet",
        votes="data/evidence/tree_votes.npy",
    log:
        "logs/evidence.log",
    benchmark:
        "benchmarks/out/evidence.tsv"
    threads: cores()
    resources:
        mem_mb=grows(8_000),
        runtime=grows(120),
    params:
        cfg=sections("seed"),
        code=code("evidence.py"),
    script:
        "../scripts/evidence.py"


rule audit:
    input:
        index="data/store/index.parquet",
        folds="data/folds.csv",
        evidence="data/evidence/evidence.parquet",
        votes="data/evidence/tree_votes.npy",
        oof="data/oof/{run}/index.csv",
        array=f"data/oof/{{run}}/{PARAMS.prediction.judge_tta}.npy",
        previous=first_audit,
    output:
        "data/audit/{run}.csv",
    log:
        "logs/audit/{run}.log",
    benchmark:
        "benchmarks/out/audit/{run}.tsv"
    wildcard_constraints:
        run=f"{runs.BASELINE}|{runs.ROUND}",
    threads: cores()
    resources:
        mem_mb=grows(8_000),
        runtime=grows(120),
    params:
        cfg=sections("prediction.judge_tta"),
        code=code("audit.py"),
    script:
        "../scripts/audit.py"


rule manifest:
    input:
        index="data/store/index.parquet",
        folds="data/folds.csv",
        verdicts="config/verdicts.csv",
        audit=audit_by(runs.BASELINE),
    output:
        report(
            "data/labels/manifest.csv",
            caption="../report/manifest.rst",
            category="Labels",
        ),
    log:
        "logs/manifest.log",
    benchmark:
        "benchmarks/out/manifest.tsv"
    resources:
        mem_mb=grows(2_000),
        runtime=grows(10),
    params:
        cfg=sections("labels"),
        code=code("manifest.py"),
    script:
        "../scripts/manifest.py"


rule pseudo_label:
    input:
        index="data/store/index.parquet",
        folds="data/folds.csv",
        verdicts="config/verdicts.csv",
        audit=lambda wildcards: audit_by(wildcards.round),
        oof="data/oof/{round}/index.csv",
        array=f"data/oof/{{round}}/{PARAMS.prediction.judge_tta}.npy",
        previous=lambda wildcards: labels_of(PARAMS.rounds[wildcards.round]),
    output:
        manifest=report(
            "data/labels/{round}/manifest.csv",
            caption="../report/pseudo_labels.rst",
            category="Pseudo-labels",
            labels={"round": "{round}"},
        ),
        array=f"data/labels/{{round}}/{PSEUDO_ARRAY}",
        locations="reports/tables/pseudo_labels_{round}.csv",
    log:
        "logs/pseudo_label/{round}.log",
    benchmark:
        "benchmarks/out/pseudo_label/{round}.tsv"
    resources:
        mem_mb=grows(4_000),
        runtime=grows(60),
    params:
        cfg=sections("data.nodata", "labels", "prediction.judge_tta", "pseudo_labels"),
        code=code("pseudo_label.py"),
    script:
        "../scripts/pseudo_label.py"
