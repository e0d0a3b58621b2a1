rule train:
    input:
        index="data/store/index.parquet",
        folds="data/folds.csv",
        labels=labels_for,
        truth=truth_for,
    output:
        weights="models/{run}/fold{fold}/model.safetensors",
        card="models/{run}/fold{fold}/model.json",
        history="reports/learning_curves/{run}/fold{fold}.csv",
    log:
        "logs/train/{run}/fold{fold}.log",
    benchmark:
        "benchmarks/out/train/{run}/fold{fold}.tsv"
    retries: 1
    threads: PARAMS.compute.threads
    resources:
        gpu=gpus() * PARAMS.compute.devices,
        mem_mb=grows(16_000),
        runtime=grows(480),
    params:
        cfg=training_sections,
        code=code("train.py"),
    script:
        "../scripts/train.py"
