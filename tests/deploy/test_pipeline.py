import itertools
from concurrent.futures import ThreadPoolExecutor

from vit_tf.deploy.pipeline import map_ahead


def test_map_ahead_is_lazy():
    drawn = []
    with ThreadPoolExecutor(2) as pool:
        results = map_ahead(pool, lambda x: x * x, (drawn.append(i) or i for i in itertools.count()), 3)
        assert drawn == []
        item, future = next(results)
        assert (item, future.result(), drawn) == (0, 0, [0, 1, 2, 3])
        assert [(x, f.result()) for x, f in map_ahead(pool, lambda x: -x, range(3), 9)] == [
            (0, 0),
            (1, -1),
            (2, -2),
        ]
