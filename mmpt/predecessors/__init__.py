"""Checkpoints of the predecessors: read, mapped key by key, converted, and written back for transformers.

source_checkpoint      a file or folder as it was published: tensors, config JSON, vocabulary
key_map                which key of theirs becomes which of ours, and the report of every key
bert_keys              what all of them share: BERT's embeddings, layers and heads
single_stream_families UNITER, VisualBERT, Oscar        dual_stream_families   LXMERT, ViLBERT
volta                  VOLTA's numbered sub-layers      text_encoders          BERT, RoBERTa as a start
fine_tuned_heads       theirs as heads of our tasks     task_heads             which of them a conversion takes
detector_keys          the detectors that their regions come from
families               their table, and how a checkpoint is recognised
conversion             `from_predecessor`, `convert`    predecessor_export     the way back
"""
