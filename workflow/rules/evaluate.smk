rule calibrate:
    input:
        index="data/store/index.parquet",
        labels=paths.labels(PARAMS.final.labels),
        oof=predictions("oof", FINAL_RUNS),
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
        cfg=sections("seed", "prediction.tta", "evaluation", "calibration"),
        code=code("calibrate.py"),
    script:
        "../scripts/calibrate.py"


rule evaluate:
    input:
        index="data/store/index.parquet",
        folds="data/folds.csv",
        manifest="data/labels/manifest.csv",
        calibration="models/calibration.json",
        predictions=predictions("test", RUNS),
        bundle="data/test/final/index.csv",
        masks="data/test/final/masks.npy",
        rounds=round_tables(),
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
        cfg=sections("seed", "prediction.tta", "prediction.compare_tta", "evaluation"),
        runs=RUNS,
        code=code("evaluate.py"),
    script:
        "../scripts/evaluate.py"


rule evaluate_truth:
    input:
        truth="data/truth/masks.csv",
        index="data/store/index.parquet",
        folds="data/folds.csv",
        manifest="data/labels/manifest.csv",
        audit=audit_by(runs.BASELINE),
        predictions=predictions("test", RUNS),
        oof=predictions("oof", [runs.BASELINE, *ROUNDS]),
        bundle="data/test/final/index.csv",
        masks="data/test/final/masks.npy",
        rounds=round_tables(),
        arrays=round_arrays(),
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
        cfg=sections("seed", "prediction", "evaluation"),
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
        cfg={},
        code=code("bundle.py"),
    script:
        "../scripts/bundle.py"
