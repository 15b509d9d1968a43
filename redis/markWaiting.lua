-- markWaiting: says what a session waits for, and since when nobody could run its step. A take clears both.
-- Uses: prelude
-- KEYS[1] session
-- ARGV[1] what it waits for, in words
-- Returns {'ok', since, now} | {'missing'}
local waiting = ARGV[1]
if redis.call('EXISTS', S) == 0 then return { 'missing' } end
redis.call('HSET', S, 'waiting', waiting)
redis.call('HSETNX', S, 'nowhereSince', now)
return { 'ok', redis.call('HGET', S, 'nowhereSince'), now }
