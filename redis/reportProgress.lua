-- reportProgress: the latest progress of a session, never less than it was; published, not recorded.
-- Uses: prelude
-- KEYS[1] session
-- ARGV[1] suffix   ARGV[2] attempt id   ARGV[3] fraction 0…1   ARGV[4] the rest of the progress object, JSON without
--   braces
-- Returns {'ok'} | {'stale'}
local suffix, attempt, fraction, rest = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local step = redis.call('HMGET', stepOf(suffix), 'attemptId', 'state')
if step[1] ~= attempt or step[2] == 'delivered' then return { 'stale' } end
local reached = redis.call('HGET', S, 'fraction')
if reached and tonumber(reached) > tonumber(fraction) then fraction = reached end
local progress = '{"fraction":' .. fraction .. ',' .. rest .. '}'
redis.call('HSET', S, 'fraction', fraction, 'progress', progress)
redis.call('PUBLISH', B .. 'events:' .. sid, progress)
return { 'ok' }
