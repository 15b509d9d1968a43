-- releaseStep: an attempt gives its step back without a result: pause, drain, preempt. Nothing is counted against the
--   session; one that has made way waits in line again.
-- Uses: prelude
-- KEYS[1] session
-- ARGV[1] suffix   ARGV[2] attempt id   ARGV[3] reason   ARGV[4] SHA-256 of the checkpoint ('' without one)
-- ARGV[5] checkpoint, JSON
-- Returns {'ok'} | {'stale'}
local suffix, attempt, reason, sha, json = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local step = redis.call('HMGET', stepOf(suffix), 'attemptId', 'state', 'name', 'worker')
if step[1] ~= attempt or step[2] == 'delivered' then return { 'stale' } end
if sha ~= '' then keepCheckpoint(suffix, sha, json) end
redis.call('HSET', stepOf(suffix), 'attemptId', '', 'expiries', 0)
leaveDevice(suffix, now, false)
-- A worker that drains is about to go: no step waits for it.
if reason == 'drain' then redis.call('HDEL', S, 'lastWorker') end
if reason == 'preempt' then
  redis.call('HSET', S, 'yielded', 1)
  redis.call('HDEL', S, 'admitted', 'onDeviceSince')
end
record('"type":"step.released","key":"' .. memberOf(suffix) .. '","step":"' .. step[3] .. '","attemptId":"' .. attempt .. '","worker":"' .. step[4]
  .. '","reason":"' .. reason .. '"' .. (sha ~= '' and ',"checkpoint":' .. json or ''))
reopen(suffix, redis.call('HGET', S, 'status'), 0)
return { 'ok' }
