"""`python -m benchmarks step --quick`: one benchmark by its name."""

import runpy
import sys

BENCHMARKS = {
    "step": "a step of either stream beside LXMERT and VisualBERT of transformers",
    "inference": "an answer of either stream beside LXMERT and VisualBERT of transformers",
    "memory": "the peak memory of a step, beside the same",
    "levers": "what each thing that makes a step fast is worth",
    "loader": "how long a step waits for a DataLoader over a store",
    "collator": "the collator's share of a step",
    "trainer": "mmpt pretrain beside a bare loop",
    "scaling": "cost as batch, regions, tokens, width and depth grow; two processes",
    "store": "reading features, beside the predecessors' files",
    "conversion": "converting a checkpoint",
    "retrieval": "two-stage retrieval",
    "extraction": "an image through bottom-up attention's detector",
}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in BENCHMARKS:
        print("usage: python -m benchmarks NAME [options]; NAME --help lists them\n")
        print("\n".join(f"{name:12}{about}" for name, about in BENCHMARKS.items()))
        sys.exit(2)
    sys.argv[:2] = [f"benchmarks {sys.argv[1]}"]
    runpy.run_module(f"benchmarks.{sys.argv[0].split()[1]}", run_name="__main__")
