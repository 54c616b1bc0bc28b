"""A small real tokenizer under the chat templates of several model families.

The templates are written here, in the manner of each family; the vocabulary is a
byte-level BPE learned from a few sentences, so that any text can be encoded.
"""

from __future__ import annotations

from functools import cache

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe helpful.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HEADERS = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
BRACKETS = (
    "{% for m in messages %}"
    "{% if m['role'] == 'system' %}{{ raise_exception('no system turn here') }}"
    "{% elif (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('turns must alternate') }}"
    "{% elif m['role'] == 'user' %}{{ bos_token }}[INST] {{ m['content'] | trim }} [/INST]"
    "{% else %} {{ m['content'] | trim }} {{ eos_token }}{% endif %}{% endfor %}"
)
PIPES = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
STYLES: dict[str, tuple[str, tuple[str, ...]]] = {
    "chatml": (CHATML, ("<|endoftext|>", "<|im_start|>", "<|im_end|>")),
    "headers": (
        HEADERS,
        ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
    "brackets": (BRACKETS, ("<unk>", "<s>", "</s>")),
    "pipes": (PIPES, ("<unk>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>")),
}
"""Template, and the special tokens it is written with."""
_START = {"headers": "<|begin_of_text|>"}
_END = {"chatml": "<|im_end|>", "headers": "<|eot_id|>"}

SENTENCES = (
    "Answer the question by searching an encyclopedia step by step.",
    "<QUERY> the director of Film <SEARCH> [1] Title: A Content: B <FACT> evidence <FINAL>",
    "Which river runs through the town where the author of the novel was born?",
    "The search is over. Give the final answer to the question: who founded the company",
    "user assistant system",
)


@cache
def tokenizer(style: str, vocabulary: int = 400, text: tuple[str, ...] = SENTENCES):
    """The tokenizer of a style, with its template; at least 256 bytes and the specials."""
    template, specials = STYLES[style]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(text, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        chat_template=template,
        bos_token=_START.get(style, "<s>" if "<s>" in specials else None),
        eos_token=_END.get(style, "</s>"),
        additional_special_tokens=list(specials),
        clean_up_tokenization_spaces=False,
    )
