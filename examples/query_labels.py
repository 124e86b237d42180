"""Ask the labels of an archive with DuckDB: `python -m examples.query_labels LABELS`."""

import sys

import duckdb

QUESTION = """
    select gender,
           10 * (age // 10)::int as from_age,
           count(*) as faces,
           round(avg(age_high - age_low), 1) as years_of_interval
    from (select unnest(faces, recursive := true) from read_parquet(?) where status = 'ok')
    group by all
    order by all
"""


def main(labels: str) -> None:
    """Count the faces of all images by gender and ten years of age."""
    print(duckdb.execute(QUESTION, [f"{labels}/labels/*.parquet"]).df().to_string(index=False))


if __name__ == "__main__":
    main(*sys.argv[1:])
