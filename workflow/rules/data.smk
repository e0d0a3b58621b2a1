rule download:
    input:
        paths.source_tables(PARAMS.data),
    output:
        manifest="data/raw/files.csv",
        truth="data/truth/masks.csv",
    log:
        "logs/download.log",
    benchmark:
        "benchmarks/out/download.tsv"
    threads: 2
    resources:
        mem_mb=grows(4_000),
        runtime=grows(240),
    params:
        cfg=sections("seed", "data", "synthetic"),
        code=code("download.py"),
    script:
        "../scripts/download.py"


rule pack:
    input:
        manifest="data/raw/files.csv",
    output:
        index="data/store/index.parquet",
        quarantine="data/quarantine.csv",
    log:
        "logs/pack.log",
    benchmark:
        "benchmarks/out/pack.tsv"
    threads: 2
    resources:
        mem_mb=grows(8_000),
        runtime=grows(60),
    params:
        cfg=sections("data"),
        code=code("pack.py"),
    script:
        "../scripts/pack.py"


rule folds:
    input:
        index="data/store/index.parquet",
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
