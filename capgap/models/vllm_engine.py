"""`VllmEngine`: vLLM in this process, with the ending of every generation, which lm-eval does not return."""

from typing import Any

from lm_eval.api.model import LM

from capgap.models.generation_ending import GenerationEnding


class VllmEngine(LM):  # type: ignore[misc]
    """Mixin before lm-eval's class for vLLM; endings stand in the order in which its cache hook is called."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.endings: list[GenerationEnding] = []
        super().__init__(*args, **kwargs)

    def _model_generate(self, requests: Any, generate: bool = False, **settings: Any) -> Any:
        outputs = super()._model_generate(requests=requests, generate=generate, **settings)
        if generate:
            for output in outputs:
                completion = output.outputs[0]
                stop_reason = "stop" if isinstance(completion.stop_reason, str) else "eos"
                reason = {"length": "length", "stop": stop_reason}.get(str(completion.finish_reason))
                self.endings.append(GenerationEnding(len(completion.token_ids), reason))
        return outputs
