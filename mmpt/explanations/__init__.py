"""Why a model answers as it does: attention, relevance, ablation, each modality; as numbers and as pictures."""
