"""A run of `fit_many` as one process of a job: `python layouts.py RESULT CHECKPOINT PORT PROCESSES
INDEX`.

PORT 0 is a job of one process. CHECKPOINT "" is none.
"""

import sys

import jax
from helpers.interrupted import data

import interlace_jax as interlace
from interlace_jax.many import chunks


def run(checkpoint: str | None) -> interlace.Many:
    """The first of the responses that `interrupted` has, in chunks of 32."""
    chunks.MOST_LANES = 32
    frame, Y = data()
    return interlace.fit_many(
        "~ x + (1 | g)", frame, responses=Y[:, :320], checkpoint=checkpoint, progress=False
    )


if __name__ == "__main__":
    result, checkpoint, port, count, index = sys.argv[1:]
    if port != "0":
        jax.distributed.initialize(f"127.0.0.1:{port}", int(count), int(index))
    many = run(checkpoint or None)
    se, df = many.fe_bse.add_prefix("se_"), many.fe_df.add_prefix("df_")
    df.join([many.fe_params, se, many.status, many.llf]).to_parquet(result)
    print(jax.local_device_count(), jax.process_count(), len(many.work))
