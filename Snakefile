from snakemake.utils import min_version

min_version("9.27")


configfile: "params.yaml"


report: "workflow/report/workflow.rst"


# Image of the Dockerfile, for `--software-deployment-method apptainer`; by default, jobs use the current environment.
container: "docker-daemon://cloudcover:latest"


include: "workflow/rules/lock.smk"
include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/labels.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/predict.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"


localrules:
    all,


rule all:
    default_target: True
    input:
        targets(),
