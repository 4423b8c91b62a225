import json

import pytest
from support.counted import small_vit

from vit_tf import count_flops
from vit_tf.flops import COMPONENTS

pytestmark = pytest.mark.every_backend


def test_table_as_dict_and_markdown():
    table = count_flops(small_vit(), 2)
    content = json.loads(json.dumps(table.to_dict()))
    assert content["batch_size"] == 2
    assert [row["flops"] for row in content["components"]] == [row.flops for row in table.rows]
    assert content["totals"]["flops"] == table.totals.flops
    lines = [line.strip("| ").split(" | ") for line in table.to_markdown().splitlines()[2:]]
    assert [line[0] for line in lines] == [*COMPONENTS, "total"]
    assert int(lines[-1][3].replace(",", "")) == table.totals.flops
    assert 0 < table.attention_share < table.attention_layer_share < 1
