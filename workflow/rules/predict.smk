rule predict:
    input:
        index="data/store/index.parquet",
        folds="data/folds.csv",
        models=lambda wildcards: paths.weights(wildcards.run, FOLDS),
    output:
        oof="data/oof/{run}/index.csv",
        oof_seconds="data/oof/{run}/seconds.csv",
        oof_arrays=expand("data/oof/{{run}}/{policy}.npy", policy=OOF_POLICIES),
        test="data/test/{run}/index.csv",
        test_seconds="data/test/{run}/seconds.csv",
        test_arrays=expand(
            "data/test/{{run}}/{policy}.npy", policy=[PARAMS.prediction.tta]
        ),
    log:
        "logs/predict/{run}.log",
    benchmark:
        "benchmarks/out/predict/{run}.tsv"
    wildcard_constraints:
        run=rf"(?!{runs.FINAL}/)({runs.RUN})",
    resources:
        gpu=gpus(),
        mem_mb=grows(16_000),
        runtime=grows(120),
    params:
        cfg=sections("compute", "prediction.tta", "prediction.judge_tta"),
        code=code("predict.py"),
    script:
        "../scripts/predict.py"


# The final models judge no labels, but are compared under more TTA policies.
use rule predict as predict_final with:
    output:
        oof="data/oof/{run}/index.csv",
        oof_seconds="data/oof/{run}/seconds.csv",
        oof_arrays=expand(
            "data/oof/{{run}}/{policy}.npy", policy=[PARAMS.prediction.tta]
        ),
        test="data/test/{run}/index.csv",
        test_seconds="data/test/{run}/seconds.csv",
        test_arrays=expand("data/test/{{run}}/{policy}.npy", policy=FINAL_POLICIES),
    wildcard_constraints:
        run=rf"{runs.FINAL}/{runs.MEMBER}",
    params:
        cfg=sections("compute", "prediction.tta", "prediction.compare_tta"),
        code=code("predict.py"),


rule predict_test:
    input:
        index="data/store/index.parquet",
        folds="data/folds.csv",
        models=weights(FINAL_RUNS),
        calibration="models/calibration.json",
    output:
        index="data/test/final/index.csv",
        masks="data/test/final/masks.npy",
    log:
        "logs/predict_test.log",
    benchmark:
        "benchmarks/out/predict_test.tsv"
    resources:
        gpu=gpus(),
        mem_mb=grows(16_000),
        runtime=grows(120),
    params:
        cfg=sections("compute"),
        code=code("predict_test.py"),
    script:
        "../scripts/predict_test.py"


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
