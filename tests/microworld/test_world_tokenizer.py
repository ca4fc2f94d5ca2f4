import pytest
from transformers import AutoConfig, AutoTokenizer, LlamaConfig

from capgap.microworld import make_world, training, write_tokenizer
from capgap.microworld.world_tokenizer import MAX_SEQUENCE_TOKENS


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(make_world(), folder)
    LlamaConfig().save_pretrained(folder)  # without it, AutoTokenizer asks the hub what kind of model this is
    assert AutoConfig.from_pretrained(folder).model_type == "llama"
    return AutoTokenizer.from_pretrained(folder)


def test_every_text_comes_back_word_for_word(tokenizer) -> None:
    for questions in training(make_world()).values():
        for question in questions[:100]:
            text = f"{question.text} {question.completion}"
            ids = tokenizer.encode(text)
            assert len(ids) == len(text.split())
            assert tokenizer.decode(ids) == text
            assert tokenizer.unk_token_id not in ids


def test_a_continuation_is_encoded_after_its_context(tokenizer) -> None:
    context, continuation = "Q 3 + 4 ? A", " 7"
    whole = tokenizer.encode(context + continuation)
    assert whole[: len(tokenizer.encode(context))] == tokenizer.encode(context)
    assert len(whole) == len(tokenizer.encode(context)) + 1


def test_nothing_is_added_and_the_end_is_hidden_when_asked(tokenizer) -> None:
    assert tokenizer.encode("A 7", add_special_tokens=True) == tokenizer.encode("A 7", add_special_tokens=False)
    ids = tokenizer.encode("A 7 <eos>")
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == "A 7"
    assert tokenizer.bos_token is None
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)
    assert tokenizer.model_max_length == MAX_SEQUENCE_TOKENS


def test_ids_are_positions_in_the_vocabulary_and_other_words_are_unknown(tokenizer) -> None:
    vocabulary = make_world().vocabulary
    assert tokenizer.convert_tokens_to_ids(list(vocabulary)) == list(range(len(vocabulary)))
    assert tokenizer.encode("nobody") == [tokenizer.unk_token_id]
