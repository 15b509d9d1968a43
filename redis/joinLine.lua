-- joinLine: a step on a device waits in line until its session is let in. It keeps its place when it comes again: after
--   a pause, or because other workers can run it now.
-- Uses: prelude
-- KEYS[1] session
-- ARGV[1] suffix   ARGV[2] dispatch it has now   ARGV[3] queue that would get its job   ARGV[4] what the session waits
--   for, in words   ARGV[5] the model that it draws with, in a word ('-' for none)
-- Returns {'ok'} | {'admitted'}: the session is in already, its job may go to the queue | {'stale'}
local suffix, dispatch, queue, waiting, model = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local session = redis.call('HMGET', S, 'status', 'priority', 'keyId', 'admitted', 'order', 'group')
local step = redis.call('HMGET', stepOf(suffix), 'state', 'dispatch', 'line', 'queue')
local status = session[1]
if (status ~= 'queued' and status ~= 'running') or step[1] ~= 'open' or step[2] ~= dispatch then return { 'stale' } end
if session[4] then return { 'admitted' } end
local line = queue .. ' ' .. session[2] .. ' ' .. (session[3] or 'local') .. ' ' .. (session[6] or '-') .. ' ' .. model
if step[3] == line then return { 'ok' } end
leaveLine(suffix)
freeSlot(suffix)
-- A job that lies in a queue from before is for an older dispatch now.
if step[4] and step[4] ~= '' then redis.call('HINCRBY', stepOf(suffix), 'dispatch', 1) end
redis.call('HSET', stepOf(suffix), 'queue', '')
redis.call('HSET', S, 'model', model)
enterLine(suffix, queue, session[2], session[3], session[6], session[5] or now)
redis.call('HSET', S, 'waiting', waiting, 'order', session[5] or now)
redis.call('HDEL', S, 'nowhereSince')
return { 'ok' }
