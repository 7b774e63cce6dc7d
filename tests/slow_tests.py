"""Tests that `make test-all` runs and `make test` leaves out: seconds of a core each, and the rest of catalogues."""

from collections import Counter
from collections.abc import Sequence

import pytest

SLOW = {
    "test_a_benchmark_runs_and_writes_its_json",
    "test_a_small_pickle_takes_little_memory_and_time",
    "test_cut_lmdb_is_an_error_that_names_it",
    "test_killed_stopped_and_damaged_runs_end_like_undisturbed_ones",
    "test_neither_the_package_nor_its_command_line_imports_evaluate",
    "test_random_words_train_as_asked_or_are_one_error",
    "test_reading_leaves_no_process_behind",
    "test_split_models_train_as_one_process_does",
    "test_the_commands_of_the_page_train_evaluate_and_predict",
    "test_the_folder_loads_where_only_mmpt_is_known",
    "test_the_page_of_the_hub_prints_what_it_shows",
    "test_two_processes_gather_the_rows_of_one",
    "test_value_that_crashes_the_library_is_rejected_and_the_next_one_read",
}
"""Tests that start many processes, or measure time and memory."""

CONTAINERS = ("lmdb", "h5")
"""Files that are fuzzed in a process of their own, which each crash starts anew."""

SLOW_PAGES = (
    "own-images",
    "explaining",
    "fine-tuning",
    "README.zh-CN",
    "examples/",
    "released-features",
    "one-example",
)
"""Documentation whose commands train or extract."""

ONE_IN = {
    "test_a_compiled_model_has_no_graph_break_from_checks": 2,
    "test_a_run_leaves_model_processor_recipe_log_metrics_predictions_and_gallery": 3,
    "test_a_run_resumed_in_its_second_epoch_ends_with_equal_weights": 5,
    "test_a_weight_has_a_gradient_or_is_frozen": 4,
    "test_a_weight_of_a_task_model_has_a_gradient_or_is_frozen": 4,
    "test_a_wrong_command_line_is_one_error_that_names_it": 8,
    "test_compiled_model_agrees": 4,
    "test_each_module_offloaded_in_turn_gives_the_same_outputs": 6,
    "test_every_contender_takes_a_step": 3,
    "test_masks_change_with_the_epoch_and_evaluation_keeps_its_own": 3,
    "test_no_weight_is_read_outside_of_its_module": 4,
    "test_nor_in_training_with_checkpointing_and_states_of_every_layer": 6,
    "test_the_example_trains_and_is_predicted": 4,
    "test_the_same_seed_gives_the_same_losses_with_and_without_workers": 3,
    "test_workers_change_nothing": 5,
}
"""Parametrised test -> one case in so many runs by default."""


def mark_slow(items: Sequence[pytest.Item]) -> None:
    """Mark the tests of the tables as slow."""
    seen: Counter[str] = Counter()
    for item in items:
        name = getattr(item, "originalname", item.name)
        is_page = name == "test_a_page_prints_what_it_shows" and any(page in item.name for page in SLOW_PAGES)
        is_container = "test_damaged_files_give" in name and any(kind in item.name for kind in CONTAINERS)
        if name in SLOW or is_page or is_container or seen[name] % ONE_IN.get(name, 1):
            item.add_marker(pytest.mark.slow)
        seen[name] += 1
