"""Tars -> shards of prepared data: one task for each tar, and what survives a crash.

tar_supply.py        which tars there are, and how missing ones are downloaded
conversion.py        all tars of a build: which tasks are left, until all are done
engines.py           which engine runs the tasks: processes, dask_engine.py or beam_engine.py
conversion_task.py   one task: a tar -> its shards, all of them or none
task_progress.py     how far a tar is
wanted_ids.py        which images a build takes, if not all
shard_order.py       in which order images lie in the shards, and where a shard ends
shard_writer.py      writes a shard
shard_files.py       whether a shard's file is still what was written
staging.py           the folder where finished tars wait for the last one
prepared_ids.py      which image each record of prepared data is
part_ids.py          which images of a tar or a shard a choice takes
prepared.py          the folder of the prepared data, and what may lie beside it
published.py         how that folder comes to be in an object store
tar_deletion.py      which finished tars may be deleted, and when
source_record.py     what is known of a tar's file: its MD5, and what it was unpacked from
estimates.py         bytes and seconds, before a tar was read
report.py            build_report.json
"""
