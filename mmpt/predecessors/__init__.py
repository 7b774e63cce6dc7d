"""Convert checkpoints of predecessors key by key, and export models back to transformers.

source_checkpoint      a published file or folder: tensors, config JSON, vocabulary
key_map                mapping of their keys to ours, and the report of all keys
bert_keys              keys shared by all predecessors: BERT's embeddings, layers and heads
single_stream_families UNITER, VisualBERT, Oscar        dual_stream_families   LXMERT, ViLBERT
volta                  VOLTA's numbered sub-layers      text_encoders          BERT, RoBERTa as a start
fine_tuned_heads       theirs as heads of our tasks     task_heads             which of them a conversion takes
detector_keys          the detectors that their regions come from
families               their table, and how a checkpoint is recognised
conversion             `from_predecessor`, `convert`    predecessor_export     the way back
"""
