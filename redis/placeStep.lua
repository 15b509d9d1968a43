-- placeStep: raises the dispatch number of a waiting step, because its job goes to another queue.
-- Uses: prelude
-- KEYS[1] session
-- ARGV[1] suffix   ARGV[2] dispatch it has now
-- Returns {'ok', dispatch} | {'stale'}
local suffix, dispatch = ARGV[1], ARGV[2]
local step = redis.call('HMGET', stepOf(suffix), 'state', 'dispatch')
if step[1] ~= 'open' or step[2] ~= dispatch then return { 'stale' } end
return { 'ok', redis.call('HINCRBY', stepOf(suffix), 'dispatch', 1) }
