"""Pack the chips into the store (uint16 digital numbers); unusable ones go to the quarantine table."""

from pathlib import Path

from cloudcover.pipeline.job import start


def main() -> None:
    params = start(snakemake)
    from cloudcover.data.pack import pack

    raw, store = Path(snakemake.input.manifest).parent, Path(snakemake.output.index).parent
    pack(raw, store, Path(snakemake.output.quarantine), params.data, snakemake.threads)


if __name__ == "__main__":
    main()
