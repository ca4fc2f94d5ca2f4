"""Training: from a tokenised dataset and teachers' signals to trained weights.

==================  ========================================================================================
`step_plan`         which examples meet in which optimizer step
`divergences`       divergences between next-token distributions, with gradients by formula
`objectives`        the loss and its gradient tile by tile
`micro_batches`     packed rows of examples and the positions that carry loss
`loss_engine`       the student's forward pass and its loss
`batch_source`      micro-batches of stored texts; `on_policy`: of texts that the student samples
`step_sources`      which source goes with which signal of a supervision
`trainer`           the training loop
==================  ========================================================================================
"""
