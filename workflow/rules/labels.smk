rule audit:
    input:
        index="data/store/index.parquet",
    output:
        "data/labels/audit.csv",
    log:
        "logs/audit.log",
    benchmark:
        "benchmarks/out/audit.tsv"
    threads: cores()
    resources:
        gpu=gpus(),
        mem_mb=grows(16_000),
        runtime=grows(240),
    params:
        cfg=sections(
            "seed",
            "data",
            "audit",
            "folds",
            "input",
            "model",
            "training",
            "augmentation",
            "compute",
        ),
        code=code("audit.py"),
    script:
        "../scripts/audit.py"


rule manifest:
    input:
        index="data/store/index.parquet",
        verdicts="config/verdicts.csv",
        audit=audit_for_manifest,
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


rule folds:
    input:
        index="data/store/index.parquet",
        manifest="data/labels/manifest.csv",
    output:
        folds="data/folds.csv",
        balance="reports/tables/folds.csv",
    log:
        "logs/folds.log",
    benchmark:
        "benchmarks/out/folds.tsv"
    resources:
        mem_mb=grows(2_000),
        runtime=grows(10),
    params:
        cfg=sections("seed", "folds"),
        code=code("folds.py"),
    script:
        "../scripts/folds.py"
