-- noteStep: an attempt's own words in the history, for the receipt: a checkpoint refused, a tensor made again.
-- Uses: prelude
-- KEYS[1] session
-- ARGV[1] suffix   ARGV[2] attempt id   ARGV[3] note, a JSON string
-- Returns {'ok'} | {'stale'}
local suffix, attempt, note = ARGV[1], ARGV[2], ARGV[3]
local step = redis.call('HMGET', stepOf(suffix), 'attemptId', 'state', 'name', 'worker')
if step[1] ~= attempt or step[2] == 'delivered' then return { 'stale' } end
record('"type":"step.noted","key":"' .. memberOf(suffix) .. '","step":"' .. step[3] .. '","attemptId":"' .. attempt .. '","worker":"' .. step[4] .. '","note":' .. note)
return { 'ok' }
