-- expireLease: declares one lease dead when it is, and puts its step back. A step that ends lease after lease without
--   progress is poisoned.
-- Uses: prelude
-- KEYS[1] session
-- ARGV[1] suffix   ARGV[2] leases that may expire in a row without progress
-- ARGV[3] worker.poisoned as the catalogue has it: JSON without braces and message
-- Returns {'reopened', worker} | {'poisoned', worker} | {'alive'} | {'closed'}
local suffix, limit, poisoned = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local key = stepOf(suffix)
local step = redis.call('HMGET', key, 'state', 'leaseUntil', 'attemptId', 'worker', 'name')
if step[1] ~= 'leased' then
  redis.call('ZREM', B .. 'leases', memberOf(suffix))
  return { 'closed' }
end
if tonumber(step[2]) > now then
  redis.call('ZADD', B .. 'leases', step[2], memberOf(suffix))
  return { 'alive' }
end
local expiries = redis.call('HINCRBY', key, 'expiries', 1)
local status = redis.call('HGET', S, 'status')
record('"type":"step.recovered","key":"' .. memberOf(suffix) .. '","step":"' .. step[5] .. '","attemptId":"' .. step[3] .. '","worker":"' .. step[4] .. '","inARow":' .. expiries)
redis.call('HINCRBY', B .. 'totals', 'recovered', 1)
redis.call('HDEL', S, 'lastWorker')
redis.call('HSET', key, 'avoid', step[4])
leaveDevice(suffix, step[2], true)
if expiries >= limit then
  local message = 'step ' .. step[5] .. ' of session ' .. sid .. ' ended ' .. expiries .. ' leases in a row without progress, the last on worker ' .. step[4]
  local details = { leases = expiries, worker = step[4], step = step[5] }
  local error = '{' .. poisoned .. ',"message":' .. cjson.encode(message) .. ',"details":' .. cjson.encode(details) .. '}'
  redis.call('HSET', S, 'before', redis.call('HGET', S, 'snapshot'))
  finish(status, 'failed', 'error', error, '"type":"session.failed","error":' .. error)
  return { 'poisoned', step[4] }
end
-- Its holder may only be late, and goes on as long as no other attempt has the step; but of a session at rest nothing
-- runs and nothing is written.
if status == 'pausing' or status == 'paused' then redis.call('HSET', key, 'attemptId', '') end
reopen(suffix, status, 0)
return { 'reopened', step[4] }
