rule predict_oof:
    input:
        index="data/store/index.parquet",
        folds="data/folds.csv",
        models=lambda wildcards: model_files(wildcards.run),
    output:
        "data/oof/{run}/index.csv",
    log:
        "logs/predict_oof/{run}.log",
    benchmark:
        "benchmarks/out/predict_oof/{run}.tsv"
    resources:
        gpu=gpus(),
        mem_mb=grows(16_000),
        runtime=grows(120),
    params:
        cfg=sections("compute", "evaluation"),
        code=code("predict_oof.py"),
    script:
        "../scripts/predict_oof.py"


rule calibrate:
    input:
        index="data/store/index.parquet",
        manifest="data/labels/manifest.csv",
        oof=expand("data/oof/{run}/index.csv", run=FINAL_RUNS),
    output:
        calibration="models/calibration.json",
        ensemble="reports/tables/ensemble.csv",
        reliability="reports/tables/reliability.csv",
    log:
        "logs/calibrate.log",
    benchmark:
        "benchmarks/out/calibrate.tsv"
    threads: cores()
    resources:
        mem_mb=grows(8_000),
        runtime=grows(120),
    params:
        cfg=sections("seed", "evaluation", "calibration"),
        code=code("calibrate.py"),
    script:
        "../scripts/calibrate.py"


rule evaluate:
    input:
        index="data/store/index.parquet",
        manifest="data/labels/manifest.csv",
        calibration="models/calibration.json",
        oof=expand("data/oof/{run}/index.csv", run=RUNS),
        pseudo=expand("data/labels/round{round}/pseudo_labels.csv", round=ROUNDS),
    output:
        metrics=report(
            "reports/metrics.json", caption="../report/metrics.rst", category="Metrics"
        ),
        chips="reports/tables/chips.csv",
        locations="reports/tables/locations.csv",
        scenes="reports/tables/scenes.csv",
        pairs="reports/tables/pairs.csv",
        coverage="reports/tables/coverage.csv",
        tta="reports/tables/tta.csv",
    log:
        "logs/evaluate.log",
    benchmark:
        "benchmarks/out/evaluate.tsv"
    resources:
        mem_mb=grows(8_000),
        runtime=grows(60),
    params:
        cfg=sections("seed", "evaluation"),
        runs=RUNS,
        code=code("evaluate.py"),
    script:
        "../scripts/evaluate.py"


rule evaluate_truth:
    input:
        truth="data/truth/masks.csv",
        index="data/store/index.parquet",
        manifest="data/labels/manifest.csv",
        audit=audit_for_manifest,
        oof=expand("data/oof/{run}/index.csv", run=RUNS),
        pseudo=expand("data/labels/round{round}/pseudo_labels.csv", round=ROUNDS),
    output:
        figures="reports/truth.json",
        chips="reports/tables/truth_chips.csv",
    log:
        "logs/evaluate_truth.log",
    benchmark:
        "benchmarks/out/evaluate_truth.tsv"
    resources:
        mem_mb=grows(8_000),
        runtime=grows(60),
    params:
        cfg=sections("seed", "evaluation"),
        runs=RUNS,
        code=code("evaluate_truth.py"),
    script:
        "../scripts/evaluate_truth.py"


rule bundle:
    input:
        models=model_files(FINAL_RUNS),
        metrics="reports/metrics.json",
        calibration="models/calibration.json",
    output:
        "models/bundle/bundle.json",
    log:
        "logs/bundle.log",
    benchmark:
        "benchmarks/out/bundle.tsv"
    resources:
        mem_mb=grows(4_000),
        runtime=grows(10),
    params:
        cfg=sections("evaluation"),
        code=code("bundle.py"),
    script:
        "../scripts/bundle.py"


rule predict_unlabelled:
    input:
        index="data/store/index.parquet",
        bundle="models/bundle/bundle.json",
    output:
        "data/predictions/masks.csv",
    log:
        "logs/predict_unlabelled.log",
    benchmark:
        "benchmarks/out/predict_unlabelled.tsv"
    resources:
        gpu=gpus(),
        mem_mb=grows(16_000),
        runtime=grows(120),
    params:
        cfg=sections("compute"),
        code=code("predict_unlabelled.py"),
    script:
        "../scripts/predict_unlabelled.py"
