"""Write the tables that the evidence pages read: python tests/evidence/make_data.py

Sources and licences: nbs/evidence/data/README.md.
"""
from pathlib import Path

import numpy as np

DATA = Path(__file__).resolve().parent.parent.parent / 'nbs' / 'evidence' / 'data'


def table(name, columns, rows):
    "Write one table: a line of column names, then a line a row, in the shortest digits"
    lines = [','.join(columns), *(','.join(str(int(x)) if float(x).is_integer() else repr(float(x))
                                           for x in row) for row in rows)]
    (DATA / f'{name}.csv').write_text('\n'.join(lines) + '\n', encoding='utf-8')


def main():
    from sklearn import datasets
    from statsmodels.datasets import co2

    cancer, wine = datasets.load_breast_cancer(), datasets.load_wine()
    names = [name.removeprefix('mean ').replace(' ', '_') for name in cancer.feature_names[:10]]
    table('wdbc', [*names, 'benign'], np.column_stack([cancer.data[:, :10], cancer.target]))
    table('wine', [*(name.replace('/', '_') for name in wine.feature_names), 'cultivar'],
          np.column_stack([wine.data, wine.target]))
    diabetes = datasets.load_diabetes(scaled=False)
    table('diabetes', [*diabetes.feature_names, 'progression'],
          np.column_stack([diabetes.data, diabetes.target]))
    months = co2.load_pandas().data.co2.resample('MS').mean().dropna()
    table('co2', ['year', 'month', 'ppm'],
          np.column_stack([months.index.year, months.index.month, months.round(2)]))


if __name__ == '__main__':
    main()
