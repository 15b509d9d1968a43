-- markWaiting: says what a session waits for, and since when no worker could run its step, which has no place in a line
--   then. Placing the step clears both, and so does a take.
-- Uses: prelude
-- KEYS[1] session
-- ARGV[1] suffix of the step   ARGV[2] what it waits for, in words
-- Returns {'ok', since, now} | {'stale'}
local suffix, waiting = ARGV[1], ARGV[2]
local status = redis.call('HGET', S, 'status')
if (status ~= 'queued' and status ~= 'running') or redis.call('HGET', stepOf(suffix), 'state') ~= 'open' then return { 'stale' } end
leaveLine(suffix)
freeSlot(suffix)
redis.call('HSET', S, 'waiting', waiting)
redis.call('HSETNX', S, 'nowhereSince', now)
return { 'ok', redis.call('HGET', S, 'nowhereSince'), now }
