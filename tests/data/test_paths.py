from polyrank.data.paths import ROOT, chained, downward, path


def test_paths_lead_from_the_root_to_the_task():
    above = (2, ROOT, 1, 1)
    assert [path(above, task) for task in range(4)] == [[1, 2, 0], [1], [1, 2], [1, 3]]


def test_without_a_tree_the_order_is_the_chain():
    assert chained(None, 3) == [ROOT, 0, 1]
    assert chained((ROOT, ROOT, ROOT), 3) == [ROOT, 0, 1]
    assert chained((ROOT, ROOT, 0), 3) == [ROOT, ROOT, 0]


def test_downward_names_a_task_after_its_parent():
    assert downward((2, ROOT, 1, 1)) == [2, 3, 0]
    assert downward((ROOT, ROOT)) == []
