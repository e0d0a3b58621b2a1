rule predict_oof:
    input:
        index="data/store/index.parquet",
        folds="data/folds.csv",
        models=lambda wildcards: paths.weights(wildcards.run, FOLDS),
    output:
        index="data/oof/{run}/index.csv",
        seconds="data/oof/{run}/seconds.csv",
        arrays=expand("data/oof/{{run}}/{policy}.npy", policy=POLICIES),
    log:
        "logs/predict_oof/{run}.log",
    benchmark:
        "benchmarks/out/predict_oof/{run}.tsv"
    wildcard_constraints:
        run=rf"(?!{runs.FINAL}/)({runs.RUN})",
    resources:
        gpu=gpus(),
        mem_mb=grows(16_000),
        runtime=grows(120),
    params:
        cfg=sections("compute", "evaluation"),
        code=code("predict_oof.py"),
    script:
        "../scripts/predict_oof.py"


use rule predict_oof as predict_oof_final with:
    output:
        index="data/oof/{run}/index.csv",
        seconds="data/oof/{run}/seconds.csv",
        arrays=expand("data/oof/{{run}}/{policy}.npy", policy=FINAL_POLICIES),
    wildcard_constraints:
        run=rf"{runs.FINAL}/{runs.MEMBER}",


rule calibrate:
    input:
        index="data/store/index.parquet",
        manifest="data/labels/manifest.csv",
        oof=oof_tables(FINAL_RUNS),
        arrays=oof_arrays(FINAL_RUNS),
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
        oof=oof_tables(RUNS),
        arrays=oof_arrays(RUNS),
        pseudo=pseudo_tables(),
        pseudo_arrays=pseudo_arrays(),
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
        oof=oof_tables(RUNS),
        arrays=oof_arrays(RUNS),
        pseudo=pseudo_tables(),
        pseudo_arrays=pseudo_arrays(),
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
        models=weights(FINAL_RUNS),
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
