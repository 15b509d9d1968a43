-- retryStep: an attempt has failed and the step is tried again after a while.
-- Uses: prelude
-- KEYS[1] session
-- ARGV[1] suffix   ARGV[2] attempt id   ARGV[3] delay, ms   ARGV[4] the counter it raises: tries | resourceTries
--   ARGV[5] error, JSON
-- Returns {'ok'} | {'stale'}
local suffix, attempt, delay, counter, error = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local step = redis.call('HMGET', stepOf(suffix), 'attemptId', 'state', 'name', 'worker')
if step[1] ~= attempt or step[2] == 'delivered' then return { 'stale' } end
redis.call('HSET', stepOf(suffix), 'attemptId', '', 'expiries', 0, 'avoid', step[4])
redis.call('HINCRBY', stepOf(suffix), counter, 1)
leaveDevice(suffix, now, true)
redis.call('HDEL', S, 'lastWorker')
record('"type":"step.retrying","key":"' .. memberOf(suffix) .. '","step":"' .. step[3] .. '","attemptId":"' .. attempt .. '","worker":"' .. step[4]
  .. '","delayMs":' .. delay .. ',"error":' .. error)
reopen(suffix, redis.call('HGET', S, 'status'), delay)
return { 'ok' }
