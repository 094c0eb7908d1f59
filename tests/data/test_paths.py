from polyrank.data.paths import ROOT, path


def test_paths_lead_from_the_root_to_the_task():
    above = (2, ROOT, 1, 1)
    assert [path(above, task) for task in range(4)] == [[1, 2, 0], [1], [1, 2], [1, 3]]
