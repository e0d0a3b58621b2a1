rule learning_curves:
    input:
        expand("reports/learning_curves/{run}/fold{fold}.csv", run=RUNS, fold=FOLDS),
    output:
        "reports/learning_curves.csv",
    log:
        "logs/learning_curves.log",
    benchmark:
        "benchmarks/out/learning_curves.tsv"
    resources:
        mem_mb=grows(2_000),
        runtime=grows(10),
    params:
        cfg={},
        code=code("learning_curves.py"),
    script:
        "../scripts/learning_curves.py"


rule report_page:
    input:
        index="data/store/index.parquet",
        quarantine="data/quarantine.csv",
        manifest="data/labels/manifest.csv",
        audit=audit_by(runs.BASELINE),
        folds="reports/tables/folds.csv",
        rounds=round_tables(),
        arrays=round_arrays(),
        predictions=predictions("test", FINAL_RUNS),
        bundle="data/test/final/index.csv",
        masks="data/test/final/masks.npy",
        metrics="reports/metrics.json",
        chips="reports/tables/chips.csv",
        locations="reports/tables/locations.csv",
        pairs="reports/tables/pairs.csv",
        coverage="reports/tables/coverage.csv",
        tta="reports/tables/tta.csv",
        calibration="models/calibration.json",
        ensemble="reports/tables/ensemble.csv",
        reliability="reports/tables/reliability.csv",
        truth="reports/truth.json",
        curves="reports/learning_curves.csv",
    output:
        report("reports/index.html", category="Report"),
    log:
        "logs/report_page.log",
    benchmark:
        "benchmarks/out/report_page.tsv"
    resources:
        mem_mb=grows(4_000),
        runtime=grows(30),
    params:
        cfg=sections("data", "labels", "prediction", "pseudo_labels", "evaluation"),
        runs=FINAL_RUNS,
        code=code("report_page.py"),
    script:
        "../scripts/report_page.py"
