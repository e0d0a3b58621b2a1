rule pseudo_label:
    input:
        index="data/store/index.parquet",
        manifest="data/labels/manifest.csv",
        folds="data/folds.csv",
        models=lambda wildcards: paths.weights(wildcards.round, FOLDS),
        previous=previous_pseudo_labels,
    output:
        table=report(
            "data/labels/{round}/pseudo_labels.csv",
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
        gpu=gpus(),
        mem_mb=grows(16_000),
        runtime=grows(120),
    params:
        cfg=sections("pseudo_labels", "compute"),
        code=code("pseudo_label.py"),
    script:
        "../scripts/pseudo_label.py"
