"""DeepSpeed's configuration for a run: ZeRO stage, precision, clipping, offload."""

from __future__ import annotations

from typing import Any, Literal


def deepspeed_config(
    stage: Literal[2, 3],
    *,
    cuda: bool,
    dtype: Literal["float32", "bfloat16", "float16"],
    clip: float,
    offload: bool,
) -> dict[str, Any]:
    """DeepSpeed's JSON, as a dictionary (https://www.deepspeed.ai/docs/config-json).

    The optimizer and the schedule are ours, not DeepSpeed's: hence the two settings
    about untested optimizers. One batch is one optimizer step here and its micro-batches
    are driven by the trainer, so DeepSpeed's own accumulation is 1.

    Args:
        clip: largest gradient norm.
        offload: keep optimizer state (and under stage 3 parameters) in host memory.
    """
    zero: dict[str, Any] = {
        "stage": stage,
        "contiguous_gradients": True,
        "overlap_comm": cuda,
        "reduce_bucket_size": 5e7,
    }
    if stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    if offload and cuda:
        host = {"device": "cpu", "pin_memory": True}
        zero["offload_optimizer"] = host
        if stage == 3:
            zero["offload_param"] = host
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": clip,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": cuda and dtype == "bfloat16"},
        "fp16": {"enabled": cuda and dtype == "float16"},
        "steps_per_print": 10**9,
    }
