r"""Draw a list of pairs.

The lists in benchmarks/pairs were created by:

python benchmarks/scripts/make_pairs.py orl 200 benchmarks/pairs/orl.csv
python benchmarks/scripts/make_pairs.py orl 120 benchmarks/pairs/orl-seen.csv --set people=[1,2,3,4,5,6,7,8] \
    --set test_pictures=[8,9,10]
python benchmarks/scripts/make_pairs.py face-folder 500 benchmarks/pairs/lfw.csv --split all --set root=LFW/val.zip

The list is deterministic for given data, count and seed. Names of pictures are written without suffix.
"""

import csv
import io
from pathlib import Path, PurePosixPath

import click
import yaml

from fsframework.core.part import part
from fsframework.data.eval_pairs import COLUMNS, draw_pairs
from fsframework.utils.files import write_text


@click.command(help=__doc__)
@click.argument("data")
@click.argument("count", type=click.IntRange(min=1))
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--split", type=click.Choice(["train", "test", "all"]), default="test", show_default=True)
@click.option("--set", "sets", multiple=True, metavar="K=V", help="Option of the dataset.")
@click.option("--seed", default=0, show_default=True)
def main(data: str, count: int, out: Path, split: str, sets: tuple[str, ...], seed: int) -> None:
    options = {key: yaml.safe_load(value) for key, _, value in (entry.partition("=") for entry in sets)}
    dataset = part("datasets", data, **options).build(64, part("detectors", "mtcnn"), split)
    dataset.load()
    names = [str(PurePosixPath(name).with_suffix("")) for name in dataset.names()]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((names[source], names[target]) for source, target in draw_pairs(dataset, count, seed))
    write_text(out, text.getvalue())


if __name__ == "__main__":
    main()
