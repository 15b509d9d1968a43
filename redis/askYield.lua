-- askYield: asks the attempt that runs a step to give it back at its next call, for an urgent session. A session is
--   asked until it has made way once.
-- Uses: prelude
-- KEYS[1] session
-- ARGV[1] suffix   ARGV[2] the worker that runs it
-- Returns {'ok'} | {'stale'}
local suffix, worker = ARGV[1], ARGV[2]
local step = redis.call('HMGET', stepOf(suffix), 'state', 'worker', 'yield')
if step[1] ~= 'leased' or step[2] ~= worker or step[3] or redis.call('HGET', S, 'yielded') then return { 'stale' } end
local slot = redis.call('HGET', B .. 'slots', memberOf(suffix))
if not slot then return { 'stale' } end
local holder, key, group, priority = string.match(slot, '^(%S+) (%S+) (%S+) (%S+)')
redis.call('HSET', stepOf(suffix), 'yield', 1)
holdSlot(suffix, holder, key, group, priority, 'asked')
redis.call('PUBLISH', 'darkroom:control', sid)
return { 'ok' }
