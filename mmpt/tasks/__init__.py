"""From an encoder to a task: fine-tune, evaluate, predict.

tasks              the table of tasks: columns, models, labels, metric; where a new task begins
section            the section `task` of a recipe
task_corpus        tables joined with regions: what a task is learnt and measured on
class_names        names and weights of classes
finetuning         `mmpt finetune`
finetuning_trainer the trainer of it
layer_rates        learning rates by layer, and freezing
evaluation         a model of a folder, opened to predict and to be scored
decoding, ranking  from outputs to predictions
judging, scoring   predictions against what is right, one by one and all together
prediction_files   predictions.jsonl
gallery            the wrong predictions as a page
commands           the commands
"""
