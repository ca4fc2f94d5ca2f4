"""Training examples, from the data of a file to tokens with loss labels.

==============  =====================================================================================
`jsonl`         examples from a JSONL file or a data set of the hub
`pool`          all examples of a file's data (batteries among them), and the held-out prompts
`overlap`       near-duplicates between examples and evaluation items
`selection`     the seeded choice from the pool; `TrainingExample`, `TaskFormat`
`targets`       completions: gold answers and traces, and how a teacher's texts become either
`encoding`      token ids and loss labels of prompts, completions and conversations
`packing`       which sequences share a forward pass
`tokenised`     the dataset of one student
==============  =====================================================================================
"""
