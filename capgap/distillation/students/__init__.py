"""The student before it learns.

====================  ==========================================================================
`loading`             model, tokenizer and digest of a checkpoint's files
`microworld_models`   recipes and training of the models of the microworld
`construction`        students that no checkpoint holds: pruned, random, or of the microworld
`student`             the loaded student, its adaptation, and how it is saved
====================  ==========================================================================
"""
