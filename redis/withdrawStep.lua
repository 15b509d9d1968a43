-- withdrawStep: a step that was let in goes back to its line, as nobody is to begin it now. One whose session a device
--   has begun stays.
-- Uses: prelude
-- KEYS[1] session
-- ARGV[1] suffix   ARGV[2] the queue that has its job   ARGV[3] what the session waits for, in words
-- Returns {'ok'} | {'stale'}
local suffix, queue = ARGV[1], ARGV[2]
local step = redis.call('HMGET', stepOf(suffix), 'state', 'queue')
local session = redis.call('HMGET', S, 'admitted', 'onDeviceSince', 'priority', 'keyId', 'order', 'group')
if step[1] ~= 'open' or step[2] ~= queue or not session[1] or session[2] then return { 'stale' } end
freeSlot(suffix)
redis.call('HDEL', S, 'admitted')
redis.call('HSET', stepOf(suffix), 'queue', '')
redis.call('HINCRBY', stepOf(suffix), 'dispatch', 1)
enterLine(suffix, session[1], session[3], session[4], session[6], session[5] or now)
redis.call('HSET', S, 'waiting', ARGV[3])
return { 'ok' }
