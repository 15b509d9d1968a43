-- placeStep: remembers which queue holds a waiting step's job, so that its session does not wait for a worker any more;
--   raises the dispatch number when the job goes to another queue, or was abandoned in this one.
-- Uses: prelude
-- KEYS[1] session
-- ARGV[1] suffix   ARGV[2] dispatch it has now   ARGV[3] queue   ARGV[4] raise the number ('' or '1')
-- Returns {'ok', dispatch} | {'stale'}
local suffix, dispatch, queue, raise = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local step = redis.call('HMGET', stepOf(suffix), 'state', 'dispatch', 'lane', 'line')
if step[1] ~= 'open' or step[2] ~= dispatch then return { 'stale' } end
if raise ~= '' then dispatch = redis.call('HINCRBY', stepOf(suffix), 'dispatch', 1) end
redis.call('HSET', stepOf(suffix), 'queue', queue, 'placedAt', now)
if step[4] then leaveLine(suffix) end
if step[3] == 'gpu' then
  local session = redis.call('HMGET', S, 'keyId', 'group', 'priority')
  holdSlot(suffix, queue, session[1], session[2], session[3] or '5', '-')
end
redis.call('HDEL', S, 'waiting', 'nowhereSince')
return { 'ok', dispatch }
