"""Convert checkpoints of predecessors key by key, and export models back to transformers.

source_checkpoint      a published file or folder: tensors, config JSON, vocabulary
key_map                mapping of their keys to ours, and the report of all keys
bert_keys              keys shared by all predecessors: BERT's embeddings, layers and heads
single_stream_families UNITER, VisualBERT, Oscar        dual_stream_families   LXMERT, ViLBERT
volta                  VOLTA's numbered sub-layers      text_encoders          initialisation from BERT, RoBERTa
fine_tuned_heads       their heads as our task heads    task_heads             choice of the head to convert
families               table of predecessors, and recognition of a checkpoint
conversion             `from_predecessor`, `convert`    predecessor_export     export to transformers
"""
