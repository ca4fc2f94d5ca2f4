from pathlib import Path
from typing import Any

import pytest

from capgap.distillation.data.encoding import NO_LOSS, EncodedExample, ExampleEncoder
from capgap.errors import DistillError
from capgap.models import PromptSettings
from tests.distillation.conftest import MARKED, make_tokenizer

SENTENCES = ["Q: what is two plus two?\nA: four", "Q: who wrote it?\nA: nobody knows", "the answer is forty two."]


@pytest.fixture(scope="module")
def bytes_tokenizer() -> Any:
    """Byte-level BPE, as GPT-2 and Llama 3 have it: a space belongs to the word behind it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.train_from_iterator(
        SENTENCES,
        trainers.BpeTrainer(
            vocab_size=330,
            special_tokens=["<eos>"],
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<eos>")


def labelled(encoded: EncodedExample) -> list[int]:
    return [label for label in encoded.labels if label != NO_LOSS]


@pytest.mark.parametrize(
    ("prompt", "completion"),
    [
        ("Q: what is two plus two?\nA:", " four"),
        ("Q: what is two plus two?\nA: ", "four"),
        ("Q: who wrote it?\n", "nobody knows"),
        ("the answer is", " forty two."),
    ],
)
def test_prompt_and_completion_are_encoded_as_lm_eval_encodes_context_and_continuation(
    bytes_tokenizer: Any, prompt: str, completion: str
) -> None:
    from lm_eval.models.huggingface import HFLM

    class Reader(HFLM):  # lm-eval's own encoding, without a model behind it
        def __init__(self) -> None:
            self.tokenizer, self.backend, self.add_bos_token = bytes_tokenizer, "causal", None

        @property
        def prefix_token_id(self) -> int:
            return int(bytes_tokenizer.eos_token_id)

    context, continuation = Reader()._encode_pair(prompt, completion)
    encoded = ExampleEncoder(bytes_tokenizer, max_length=64).pair(prompt, completion)
    assert encoded is not None
    assert list(encoded.input_ids) == [*context, *continuation, bytes_tokenizer.eos_token_id]
    # What stands of the continuation in the prompt's own tokens (a newline, but no space) a generation does not write.
    given = len(bytes_tokenizer.encode(prompt)) - len(context) if prompt.endswith("\n") else 0
    assert labelled(encoded) == [*continuation[given:], bytes_tokenizer.eos_token_id]


def test_labels_mask_exactly_the_prompt_and_end_with_the_end_of_text() -> None:
    tokenizer = make_tokenizer()
    encoded = ExampleEncoder(tokenizer, max_length=64).pair("Q 1 + 2 ?", " A 3")
    assert encoded is not None
    words = tokenizer.convert_ids_to_tokens(list(encoded.input_ids))
    assert words == ["<bos>", "Q", "1", "+", "2", "?", "A", "3", "<eos>"]
    assert [word for word, label in zip(words, encoded.labels, strict=True) if label != NO_LOSS] == ["A", "3", "<eos>"]
    assert all(label in (NO_LOSS, token) for token, label in zip(encoded.input_ids, encoded.labels, strict=True))


def test_a_prompt_that_begins_with_the_first_token_does_not_get_it_twice() -> None:
    encoded = ExampleEncoder(make_tokenizer(), max_length=64).pair("<bos> Q 1 ?", " A 3")
    assert encoded is not None
    assert encoded.input_ids.count(1) == 1


def test_the_prompt_is_cut_at_its_front_and_a_completion_that_is_too_long_is_left_out() -> None:
    encoder = ExampleEncoder(make_tokenizer(), max_length=6)
    cut = encoder.pair("Q 1 + 2 + 3 + 4 ?", " A 9")
    assert cut is not None
    assert (len(cut.input_ids), cut.n_truncated, cut.n_loss_tokens) == (6, 7, 3)
    assert encoder.pair("Q 1 ?", " 1 + 2 + 3 + 4 A 9") is None


def test_a_chat_template_stands_around_the_prompt_and_carries_no_loss() -> None:
    tokenizer = make_tokenizer(chat_template=MARKED)
    prompting = PromptSettings(chat_template=True, system_prompt="the answer")
    encoded = ExampleEncoder(tokenizer, max_length=64, prompting=prompting).pair("Q 1 ?", " A 3")
    assert encoded is not None
    words = " ".join(tokenizer.convert_ids_to_tokens(list(encoded.input_ids)))
    assert words == "<bos> system the answer user Q 1 ? assistant A 3 <eos>"
    assert encoded.n_loss_tokens == 3


TURNS = [
    {"role": "user", "content": "Q 1 ?"},
    {"role": "assistant", "content": "A 1"},
    {"role": "user", "content": "Q 2 ?"},
    {"role": "assistant", "content": "A 2"},
]


def test_loss_stands_on_every_assistant_turn_and_its_end() -> None:
    tokenizer = make_tokenizer(chat_template=MARKED)
    encoded = ExampleEncoder(tokenizer, max_length=64).messages(TURNS)
    assert encoded is not None
    assert tokenizer.convert_ids_to_tokens(labelled(encoded)) == ["A", "1", "<eos>", "A", "2", "<eos>"]


def test_what_a_template_writes_between_turns_is_not_learnt() -> None:
    between = (
        MARKED.replace("' <eos> '", "' <eos> ; '").replace("{% generation %}", "").replace("{% endgeneration %}", "")
    )
    tokenizer = make_tokenizer(chat_template=between)
    encoded = ExampleEncoder(tokenizer, max_length=64).messages(TURNS)
    assert encoded is not None
    assert tokenizer.convert_ids_to_tokens(labelled(encoded)) == ["A", "1", "<eos>", "A", "2", "<eos>"]
    assert tokenizer.convert_ids_to_tokens(list(encoded.input_ids)).count(";") == 1


def test_an_end_of_turn_is_put_where_the_template_has_none() -> None:
    tokenizer = make_tokenizer(chat_template=MARKED.replace(" <eos> ", " "))
    encoded = ExampleEncoder(tokenizer, max_length=64).messages(TURNS)
    assert encoded is not None
    assert tokenizer.convert_ids_to_tokens(labelled(encoded)) == ["A", "1", "A", "2", "<eos>"]


def test_marks_and_prefixes_find_the_same_mask() -> None:
    encoder = ExampleEncoder(make_tokenizer(chat_template=MARKED), max_length=64)
    assert encoder._mask_by_marks(TURNS) == encoder._mask_by_prefixes(TURNS)


def test_a_template_that_rewrites_earlier_turns_is_refused() -> None:
    rewriting = (
        "{% for m in messages %}{{ m['role'] + ' ' }}"
        "{% if m['role'] == 'assistant' and not loop.last %}{{ 'the ' }}{% endif %}{{ m['content'] + ' ' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant ' }}{% endif %}"
    )
    encoder = ExampleEncoder(make_tokenizer(chat_template=rewriting), max_length=64)
    with pytest.raises(DistillError, match="split the conversation"):
        encoder.messages(TURNS)
    assert encoder.messages(TURNS[:2]) is not None
    marked = rewriting.replace(
        "{{ m['content'] + ' ' }}", "{% generation %}{{ m['content'] + ' ' }}{% endgeneration %}"
    )
    tokenizer = make_tokenizer(chat_template=marked)
    with_marks = ExampleEncoder(tokenizer, max_length=64).messages(TURNS[1:])
    assert with_marks is not None
    assert tokenizer.convert_ids_to_tokens(labelled(with_marks))[:2] == ["A", "1"]


@pytest.mark.parametrize(
    ("change", "message"),
    [({"eos_token": None}, "learn to stop"), ({"chat": True}, "chat_template=off")],
)
def test_a_tokenizer_that_cannot_do_it_is_refused(change: dict[str, Any], message: str) -> None:
    tokenizer = make_tokenizer()
    if "eos_token" in change:
        tokenizer.eos_token = None
    with pytest.raises(DistillError, match=message):
        ExampleEncoder(tokenizer, max_length=8, prompting=PromptSettings(chat_template=change.get("chat", False)))


def test_messages_without_a_template_are_refused() -> None:
    with pytest.raises(DistillError, match="Use prompt/completion"):
        ExampleEncoder(make_tokenizer(), max_length=8).messages(TURNS)


def test_a_prompt_that_ends_inside_a_word_keeps_the_tokens_that_a_generation_starts_from(bytes_tokenizer: Any) -> None:
    encoded = ExampleEncoder(bytes_tokenizer, max_length=64).pair("Q: wh", "at is two?")
    assert encoded is not None
    asked = bytes_tokenizer.encode("Q: wh")
    assert list(encoded.input_ids[: len(asked)]) == asked
    assert encoded.n_loss_tokens == len(encoded.input_ids) - len(asked)
    assert bytes_tokenizer.decode(encoded.input_ids[:-1]) == "Q: what is two?"


@pytest.mark.real
def test_real_tokenizers_agree_with_lm_eval() -> None:
    import os

    from lm_eval.models.huggingface import HFLM

    for folder in Path(os.environ["CAPGAP_REAL_MODELS"]).iterdir():
        lm = HFLM(pretrained=str(folder), device="cpu", batch_size=1)
        encoder = ExampleEncoder(lm.tokenizer, max_length=512)
        for sentence in SENTENCES:
            for cut in range(1, len(sentence)):
                context, continuation = lm._encode_pair(sentence[:cut], sentence[cut:])
                encoded = encoder.pair(sentence[:cut], sentence[cut:])
                assert encoded is not None
                assert list(encoded.input_ids[: len(context)]) == context
                assert lm.tokenizer.decode(encoded.input_ids[:-1], skip_special_tokens=True) == sentence
                if sentence[cut].isspace() or sentence[cut - 1].isspace():
                    assert list(encoded.input_ids[:-1]) == context + continuation


def test_reasoning_and_answer_weigh_apart() -> None:
    encoder = ExampleEncoder(make_tokenizer(), max_length=64)
    text = " 1 + 2 = 3 ; A 3"
    encoded = encoder.pair("Q 1 + 2 ?", text, answer_offset=text.index("A"), weights=(0.5, 2.0))
    plain = encoder.pair("Q 1 + 2 ?", text)
    assert encoded is not None
    assert plain is not None
    assert (encoded.input_ids, encoded.labels) == (plain.input_ids, plain.labels)
    assert encoded.weights == (*[0.5] * 6, *[2.0] * 3)  # 1 + 2 = 3 ; then A 3 and the end of text
    all_of_it = encoder.pair("Q 1 + 2 ?", text, answer_offset=0, weights=(0.5, 2.0))
    assert all_of_it is not None
    assert set(all_of_it.weights or ()) == {2.0}


def test_a_token_over_the_boundary_belongs_to_the_answer(bytes_tokenizer: Any) -> None:
    encoder = ExampleEncoder(bytes_tokenizer, max_length=64)
    text = " so it is 12"
    encoded = encoder.pair("Q", text, answer_offset=text.index("2"), weights=(0.0, 1.0))
    assert encoded is not None
    assert encoded.weights is not None
    assert len(encoded.weights) == encoded.n_loss_tokens
    assert encoded.weights[-1] == 1.0
    assert sorted(encoded.weights) == list(encoded.weights)
