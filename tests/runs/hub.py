"""Push a store to the Hub that HF_ENDPOINT names, load it again and stream it: a process of its own, because the
libraries of the Hub read their settings once.

python tests/runs/hub.py STORE OUT
"""

import json
import sys
from pathlib import Path

from mmpt.processing.pairs.streaming import StreamedPairDataset
from mmpt.processing.store.region_store import RegionStore

store = RegionStore.open(sys.argv[1])
store.push_to_hub("tester/regions", private=True, token="hf_token")
loaded = RegionStore.from_hub("tester/regions", sys.argv[2], token="hf_token")
pairs = {"text": [f"this is {name}" for name in store], "image_id": list(store)}
streamed = StreamedPairDataset(pairs, "tester/regions", buffer=1)
items = [(item["image_id"], float(item["regions"].features.sum())) for item in streamed]
Path(sys.argv[2]).with_suffix(".json").write_text(json.dumps({"items": items, "loaded": list(loaded)}))
