-- showPreview: how the picture of a session looks by now, kept for a while in place of the one before.
-- Uses: prelude
-- KEYS[1] session
-- ARGV[1] suffix   ARGV[2] attempt id   ARGV[3] for how long, ms   ARGV[4] what it is of, a JSON object
-- ARGV[5] a JPEG in base64
-- Returns {'ok'} | {'stale'}
local suffix, attempt, keptMs, source, jpeg = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local step = redis.call('HMGET', stepOf(suffix), 'attemptId', 'state')
if step[1] ~= attempt or step[2] == 'delivered' then return { 'stale' } end
redis.call('SET', B .. 'preview:' .. sid, source .. '\n' .. jpeg, 'PX', keptMs)
return { 'ok' }
