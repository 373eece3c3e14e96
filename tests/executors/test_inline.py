from hpsearch.executors.inline import InlineExecutor
from tests.conformance.executors import ExecutorConformance, assignment, workload


class TestInline(ExecutorConformance):
    def make(self, lanes):
        return InlineExecutor(device="cpu", lanes=lanes)


def test_close_forgets_what_waits(tmp_path):
    executor = InlineExecutor(device="cpu")
    executor.start([assignment(0)], workload("naps", tmp_path))
    executor.close()
    assert executor.poll(0.0) == []
