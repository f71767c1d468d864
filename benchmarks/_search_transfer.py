"""TODO."""
from benchmarks._search_run import Task
def task(seed, trials): return Task("resnet-56","transfer","transfer","agmc",{},0.5,trials,seed=seed)
def run(task, protocol, folder): raise NotImplementedError
