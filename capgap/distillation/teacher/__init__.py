"""The teacher: its texts, and its distributions over every token.

==================  =================================================================================
`prompt_context`    what the teacher sees and the student never does
`generations`       a teacher's texts as completions; `team`: one text out of several teachers'
`signal_forms`      forms of a distribution: hidden states, top k with a tail, a sample
`cache`             distributions on the disk, in checksummed shards
`distributions`     packed passes of a teacher, into the cache or online
`signals`           the cached distributions of all teachers for one dataset
==================  =================================================================================
"""
