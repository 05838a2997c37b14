"""How many attributes could be read strongly at all: by directions that were told the attributes.

    python benchmarks/kinds_ceiling.py --templates SET --attributes labels.csv

For each attribute a logistic regression on whitened templates of the discovery side; its direction and the opposite are
features, which are then judged as those of a dictionary are, on the confirmation side. A dictionary told nothing
can hardly read more kinds.
"""

import argparse

import numpy as np
from sklearn.linear_model import LogisticRegression

from fsae_mlflow.features.describe import distinct
from fsae_mlflow.features.labels.attributes import read_attributes
from fsae_mlflow.features.readings.judgments import ReadFaces, Sides, attribute_columns
from fsae_mlflow.identities import holdout_rows
from fsae_mlflow.sae.directions import Whitening, unit, whitened
from fsae_mlflow.sae.entries import Entries
from fsae_mlflow.templates.set import TemplateSet

INVERSE_PENALTY = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--templates", required=True)
    parser.add_argument("--attributes", required=True)
    parser.add_argument("--dimensions", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0, help="Seed of the split of people.")
    given = parser.parse_args()
    templates = TemplateSet.open(given.templates)
    kept = distinct(templates.templates)
    x = unit(templates.templates[kept].astype(np.float64))
    x -= x.mean(axis=0)
    z = whitened(x, Whitening.of(x, given.dimensions))
    identities = templates.identities[kept].astype(str)
    names, people = np.unique(identities, return_inverse=True)
    labels = read_attributes(given.attributes, templates).booleans
    booleans = {name: values[kept] for name, values in labels.items()}
    confirm = holdout_rows(identities, 0.5, seed=given.seed)
    directions = []
    for values in booleans.values():
        rows = ~np.isnan(values) & ~confirm
        fit = LogisticRegression(C=INVERSE_PENALTY, max_iter=300).fit(z[rows], values[rows])
        directions += [fit.coef_[0], -fit.coef_[0]]
    entries = Entries.of(z @ np.stack(directions).T)
    faces = ReadFaces(
        people=people, names=names.tolist(), confirm=confirm, properties={}, booleans=booleans, numbers={}
    )
    columns = attribute_columns(Sides.of(entries, faces), faces)
    strong = sorted(set(columns["attribute"][columns["attribute_strong"]]))
    print(f"{len(strong)} of {len(booleans)} attributes can be read strongly: {', '.join(strong)}")


if __name__ == "__main__":
    main()
